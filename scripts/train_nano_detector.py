"""Train the shipped nano detector: one class, `object`, from scratch, on one CPU core or one GPU.

    python -m scripts.train_nano_detector --data-root ../shared/data --cache-dir CACHE --out-dir OUT --minutes 110
    python -m scripts.train_nano_detector ... --until 08:20 --resume      # goes on where OUT stopped
    python -m scripts.train_nano_detector ... --smoke                     # all of it, in seconds

The clock is the budget: learning rate and picture size follow the share of the time that is used up.
Metrics go to OUT/metrics.jsonl; weights and their JSON go to --weights-dir, every --export-minutes and at the end.
On a CPU, glibc's MALLOC_TOP_PAD_, MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ set high save a sixth.
"""

# ruff: noqa: I001 - scripts.evaluate_nano_detector sets what ultralytics reads at its import, so it comes first
from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import platform
import signal
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.evaluate_nano_detector import (
    BOX_VOTING,
    WEIGHTS_DIR,
    detect,
    draw,
    evaluate_all,
    read_rgb,
    recommended,
)

import cv2
import numpy as np
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.tal import TaskAlignedAssigner

from autolabel.ops.device import Precision, autocast, runs_bf16
from scripts.nano.compose import Composer, Example
from scripts.nano.dataset import DATASETS, load_pictures

WEIGHT_DECAY = 0.02
WARMUP_STEPS = 200
EMA_DECAY, EMA_RAMP_STEPS = 0.9985, 600
SIDE_JITTER_PX = 32
LEVEL_RANGE = (2.0, 8.0)  # an object of a level is so many strides large: the root of its box's area
FINISHING = 0.88  # share of the budget after which most pictures are no longer composed
# Of yolo11: what the detections of stride 32 alone go through.
COARSEST = ("model.20.", "model.22.", "model.23.cv2.2.", "model.23.cv3.2.")


class WeightedBackground(nn.Module):
    """Binary cross-entropy in which an anchor without an object counts as much as `weights` says, per anchor."""

    weights: torch.Tensor  # (B, anchors, 1), set before each batch

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return torch.where(targets > 0, loss, loss * self.weights)


class AssignerBySize(TaskAlignedAssigner):
    """Task-aligned (Feng et al. 2021, TOOD), but an object belongs to the levels whose stride fits its size.

    Else the level whose boxes happen to fit at the start keeps all objects. Untrained boxes of ultralytics are 15
    strides large: at stride 32 larger than these pictures, so that none was ever assigned and its head never learnt.
    """

    anchor_strides: torch.Tensor  # (anchors,) of the batch at hand

    def select_candidates_in_gts(
        self, xy_centers: torch.Tensor, gt_bboxes: torch.Tensor, mask_gt: torch.Tensor, eps: float = 1e-9
    ) -> torch.Tensor:
        inside = super().select_candidates_in_gts(xy_centers, gt_bboxes, mask_gt, eps)
        sizes = (gt_bboxes[..., 2:] - gt_bboxes[..., :2]).clamp_min(0).prod(-1, keepdim=True).sqrt()
        strides = self.anchor_strides
        low = torch.where(strides > min(self.stride), LEVEL_RANGE[0] * strides, 0)
        high = torch.where(strides < max(self.stride), LEVEL_RANGE[1] * strides, math.inf)
        return inside & (sizes >= low) & (sizes <= high)


class PartlyLabelledLoss(v8DetectionLoss):
    """The loss of YOLO11, for pictures of which only `batch["weights"]` (B, H, W) says where labels are complete."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.bce = WeightedBackground()
        self.assigner = AssignerBySize(
            topk=10, num_classes=self.nc, alpha=0.5, beta=6.0, stride=self.stride.tolist()
        )

    def loss(self, preds: dict[str, Any], batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        weights = batch["weights"][:, None]
        levels = [nn.functional.adaptive_avg_pool2d(weights, feature.shape[2:]) for feature in preds["feats"]]
        self.bce.weights = torch.cat([level.flatten(1) for level in levels], 1)[..., None]
        counts = torch.tensor([level[0].numel() for level in levels], device=self.device)
        self.assigner.anchor_strides = self.stride.to(self.device).repeat_interleave(counts)
        return super().loss(preds, batch)


@dataclass(slots=True)
class Clock:
    """Seconds of training used so far, over all resumed parts, and seconds in total."""

    used_before_s: float
    total_s: float
    started: float

    def used_s(self) -> float:
        return self.used_before_s + time.monotonic() - self.started

    def progress(self) -> float:
        return min(1.0, self.used_s() / self.total_s)


def build_model(architecture: str) -> DetectionModel:
    model = DetectionModel(architecture, nc=1, verbose=False)
    model.names = {0: "object"}
    with torch.no_grad():  # boxes start about four strides large, not fifteen
        for head in model.model[-1].cv2:
            head[-1].bias.copy_((-0.4 * torch.arange(model.model[-1].reg_max)).repeat(4))
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)  # the gains of ultralytics' default.yaml
    return model


def build_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up by steps, then a cosine over the time budget down to one hundredth."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def picture_side(sides: list[int], stage_ends: list[float], progress: float, rng: np.random.Generator) -> int:
    """The side of this stage, at times 32 px less or more."""
    stage = sum(progress > end for end in stage_ends)
    return sides[min(stage, len(sides) - 1)] + SIDE_JITTER_PX * int(rng.integers(-1, 2))


def collate(examples: list[Example], device: torch.device) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures (B, 3, H, W) in 0..1; boxes as ultralytics wants them: centre, width, height, relative to the side."""
    side = examples[0].image_rgb.shape[0]
    images = torch.from_numpy(np.stack([example.image_rgb for example in examples])).to(device)
    boxes = torch.from_numpy(np.concatenate([example.boxes_xyxy for example in examples])) / side
    counts = torch.tensor([len(example.boxes_xyxy) for example in examples])
    batch = {
        "batch_idx": torch.arange(len(examples)).repeat_interleave(counts).float(),
        "cls": torch.zeros(len(boxes)),
        "bboxes": torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1),
        "weights": torch.from_numpy(np.stack([example.weights for example in examples])),
    }
    pixels = images.permute(0, 3, 1, 2).float().div_(255)  # NHWC memory is channels_last already
    return pixels, {key: value.to(device) for key, value in batch.items()}


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, step: int) -> None:
    decay = EMA_DECAY * (1 - math.exp(-(step + 1) / EMA_RAMP_STEPS))
    pairs = [*zip(ema.state_dict().values(), model.state_dict().values(), strict=True)]
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([kept for kept, _ in averaged], [new for _, new in averaged], 1 - decay)
    for kept, new in pairs:
        if not kept.is_floating_point():
            kept.copy_(new)


class Trainer:
    """State of one run: everything a checkpoint holds."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.watched = {path: read_rgb(path) for path in args.watch}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = _precision(self.device)
        datasets = ("coco_train",) if args.smoke else DATASETS
        pictures = load_pictures(args.data_root, args.cache_dir, datasets)
        self.composer = Composer(pictures=[p for p in pictures if p.split == "train"], seed=args.seed)
        val = [p for p in pictures if p.split == "val"]
        self.val = val[:4] if args.smoke else [p for i, p in enumerate(val) if p.complete_labels or i % 8 == 0]
        torch.manual_seed(args.seed)
        self.model = build_model(args.architecture).to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = build_optimizer(self.model, args.lr)
        self.criterion = PartlyLabelledLoss(self.model)
        self.step = 0
        self.samples = 0
        self.stopped = False
        self.clock = Clock(0.0, 1.0, time.monotonic())
        self.continued_from: dict[str, Any] = {}
        if args.resume:
            self._load_checkpoint()
        elif args.init:
            self._start_from(args.init)
        self._forward = torch.compile(self.model, dynamic=True) if self.device.type == "cuda" else self.model

    def _start_from(self, weights: Path) -> None:
        """Weights of an earlier run, with a fresh optimiser and a fresh schedule."""
        from safetensors.torch import load_file

        state = load_file(weights)
        if self.args.restart_coarsest:  # weights before AssignerBySize: their stride 32 has seen no object
            state |= {k: v for k, v in self.model.state_dict().items() if k.startswith(COARSEST)}
        self.model.load_state_dict(state)
        self.ema.load_state_dict(state)
        about = json.loads(weights.with_suffix(".json").read_text("utf-8"))
        self.continued_from = {key: about.get(key) for key in ("sha256", "trained_minutes", "steps", "samples")}

    def run(self) -> None:
        args = self.args
        args.out_dir.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(
            self.clock.used_before_s, self.clock.used_before_s + _seconds_to_train(args), time.monotonic()
        )
        self._log(
            "start", **_hardware(self.device), seed=args.seed, architecture=args.architecture, batch=args.batch
        )
        due = {"log": 0.0, "checkpoint": 60 * args.checkpoint_minutes, "export": 60 * args.export_minutes}
        due = {name: self.clock.used_s() + after_s for name, after_s in due.items()}
        signal.signal(signal.SIGTERM, self._stop)
        last_step = self.step + 4 if args.smoke else math.inf
        while self.clock.progress() < 1 and self.step < last_step and not self.stopped:
            losses = self._train_step()
            if self.clock.used_s() > due["log"]:
                due["log"] = self.clock.used_s() + args.log_seconds
                self._log("train", **losses)
            if self.clock.used_s() > due["checkpoint"]:
                due["checkpoint"] = self.clock.used_s() + 60 * args.checkpoint_minutes
                self._save_checkpoint()
            if self.clock.used_s() > due["export"]:
                due["export"] = self.clock.used_s() + 60 * args.export_minutes
                self._export(self._look())
        self._save_checkpoint()
        if not self.stopped:
            if not args.smoke:
                args.image_size, args.conf = recommended(self.ema, self.val, iou=args.iou)
            self._export(self._look())
        self._log("stopped" if self.stopped else "end")

    def _stop(self, *_: object) -> None:
        """On SIGTERM: end after this step, with a checkpoint and without an export."""
        self.stopped = True

    def _train_step(self) -> dict[str, float]:
        args, progress = self.args, self.clock.progress()
        side = picture_side(args.sides, args.stage_ends, progress, self.composer.rng)
        self.composer.finishing = progress > FINISHING
        began = time.monotonic()
        examples = [self.composer.example(side) for _ in range(args.batch)]
        composed = time.monotonic()
        pixels, batch = collate(examples, self.device)
        lr = learning_rate(args.lr, self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        with autocast(self.device.type, self.precision):
            predictions = self._forward(pixels)
        predictions = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in predictions.items()}
        loss, parts = self.criterion(predictions, batch)
        loss = loss.sum() / args.batch
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}; resume with a lower --lr")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        self.optimizer.step()
        update_ema(self.ema, self.model, self.step)
        self.step += 1
        self.samples += args.batch
        ended = time.monotonic()
        return {
            **{name: round(float(value), 4) for name, value in parts.items()},
            "grad_norm": round(float(norm), 2),
            "lr": round(lr, 6),
            "side": side,
            "boxes_per_picture": len(batch["bboxes"]) / args.batch,
            "samples_per_s": round(args.batch / (ended - began), 1),
            "compose_share": round((composed - began) / (ended - began), 3),
        }

    def _look(self) -> dict[str, Any]:
        """Metrics of the averaged weights, and the watched pictures with their boxes. Nothing here trains."""
        args = self.args
        metrics = evaluate_all(self.ema, self.val, image_size=args.image_size, conf=args.conf, iou=args.iou)
        self._log("val", image_size=args.image_size, **metrics)
        for path, image_rgb in self.watched.items():
            boxes = detect(self.ema, image_rgb, image_size=args.image_size, conf=args.conf, iou=args.iou)
            drawn = cv2.cvtColor(draw(image_rgb, boxes), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(args.out_dir / f"{path.stem}-{self.step:06d}.png"), drawn)
            self._log("watch", picture=path.name, boxes=boxes.round(2).tolist())
        return metrics

    def _export(self, metrics: dict[str, Any]) -> None:
        """fp16 weights and what a reader needs to use them; a reader never sees half a file."""
        from safetensors.torch import save_file

        args = self.args
        args.weights_dir.mkdir(parents=True, exist_ok=True)
        weights = args.weights_dir / "detector.safetensors"
        unfinished = weights.with_suffix(".part")
        state = {k: v.half() if v.is_floating_point() else v for k, v in self.ema.state_dict().items()}
        save_file({key: value.cpu().contiguous() for key, value in state.items()}, unfinished)
        description = {
            "architecture": args.architecture,
            "nc": 1,
            "names": ["object"],
            "imgsz": args.image_size,
            "conf": args.conf,
            "iou": args.iou,
            "box_voting": BOX_VOTING,
            "sha256": hashlib.sha256(unfinished.read_bytes()).hexdigest(),
            "params": sum(parameter.numel() for parameter in self.model.parameters()),
            "trained_minutes": round(self.clock.used_s() / 60, 1),
            "steps": self.step,
            "samples": self.samples,
            "seed": args.seed,
            "trained_on": _hardware(self.device),
            **({"continued_from": self.continued_from} if self.continued_from else {}),
            "metrics": metrics,
        }
        unfinished.chmod(0o644)  # safetensors makes it readable by its owner alone
        unfinished.replace(weights)
        _write_atomically(args.weights_dir / "detector.json", json.dumps(description, indent=2) + "\n")
        self._log("export", sha256=description["sha256"])

    def _save_checkpoint(self) -> None:
        path = self.args.out_dir / "checkpoint.pt"
        unfinished = path.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "composer_rng": json.dumps(self.composer.rng.bit_generator.state),
            "step": self.step,
            "samples": self.samples,
            "used_s": self.clock.used_s(),
            "continued_from": self.continued_from,
        }
        torch.save(state, unfinished)
        unfinished.replace(path)

    def _load_checkpoint(self) -> None:
        state = torch.load(self.args.out_dir / "checkpoint.pt", map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"].cpu())
        self.composer.rng.bit_generator.state = json.loads(state["composer_rng"])
        self.step, self.samples = state["step"], state["samples"]
        self.continued_from = state.get("continued_from", {})
        self.clock.used_before_s = state["used_s"]

    def _log(self, kind: str, **values: Any) -> None:
        record = {
            "kind": kind,
            "time": datetime.now().astimezone().strftime("%H:%M:%S"),
            "step": self.step,
            "samples": self.samples,
        }
        record |= {"used_s": round(self.clock.used_s()), "progress": round(self.clock.progress(), 4), **values}
        line = json.dumps(record)
        with (self.args.out_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)


def _seconds_to_train(args: argparse.Namespace) -> float:
    if args.until is None:
        return 60 * args.minutes
    hour, minute = (int(part) for part in args.until.split(":"))
    now = datetime.now().astimezone()
    end = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((end if end > now else end + timedelta(days=1)) - now).total_seconds()


def _hardware(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "precision": _precision(device),
        "hardware": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _precision(device: torch.device) -> Precision:
    return "bfloat16" if runs_bf16(device) else "float32"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor()} ({capability})"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache-dir", type=Path, required=True, help="decoded pictures; outside the project")
    parser.add_argument("--out-dir", type=Path, required=True, help="checkpoint and metrics; outside the project")
    parser.add_argument("--weights-dir", type=Path, default=WEIGHTS_DIR)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=110.0)
    budget.add_argument("--until", metavar="HH:MM", help="local time; evaluation comes after it")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--init", type=Path, help="weights of an earlier run to go on from, e.g. the shipped ones")
    parser.add_argument("--restart-coarsest", action="store_true", help="with --init: stride 32 from scratch")
    parser.add_argument(
        "--smoke", action="store_true", help="four small steps on one data set, then everything else"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architecture", default="yolo11n.yaml")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[192, 256, 320], help="training sides, px, by stage"
    )
    parser.add_argument("--stage-ends", type=float, nargs="+", default=[0.4, 0.75], help="shares of the budget")
    parser.add_argument(
        "--image-size", type=int, default=416, help="recommended side at inference, until the end settles it"
    )
    parser.add_argument("--conf", type=float, default=0.3, help="recommended confidence, until the end settles it")
    parser.add_argument("--iou", type=float, default=0.6, help="recommended threshold of duplicate suppression")
    parser.add_argument(
        "--watch", type=Path, nargs="*", default=[], help="pictures to draw boxes on, never trained on"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-seconds", type=float, default=20.0)
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    parser.add_argument("--export-minutes", type=float, default=10.0)
    args = parser.parse_args(argv)
    if args.smoke:
        args.sides, args.batch, args.image_size = [96], 2, 128
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.resume and not (args.out_dir / "checkpoint.pt").exists():
        raise SystemExit(f"{args.out_dir / 'checkpoint.pt'} does not exist; leave out --resume to start anew")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    Trainer(args).run()


if __name__ == "__main__":
    main()
