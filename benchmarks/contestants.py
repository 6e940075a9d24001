"""Programs that turn pictures and boxes into masks on disk, ours among them: same pictures, boxes, weights.

Each is written as its authors' code does it (the places are named), with everything from the file to the labels
on disk inside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.core.protocols import Segmenter
from autolabel.core.types import ImageRef, PromptedMask, Prompts, Rle
from autolabel.ops.device import runs_bf16
from autolabel.ops.images import load_frame
from autolabel.ops.masks import encode
from autolabel.weights.quiet import ultralytics_at_bay
from benchmarks.parity import Answer, Answers
from benchmarks.pictures import read_bgr

Label = Callable[[Sequence[Path], Sequence[np.ndarray], Path], Answers | None]
"""Pictures and their boxes (N, 4) to labels in a folder; the answers, or None from one that writes polygons alone."""

REFERENCE = "SAM2ImagePredictor"
ULTRALYTICS = {
    "sam2_tiny": "sam2.1_t.pt", "sam2_small": "sam2.1_s.pt", "sam2_base_plus": "sam2.1_b.pt", "sam2_large": "sam2.1_l.pt",
    "sam2_0_tiny": "sam2_t.pt", "sam2_0_small": "sam2_s.pt", "sam2_0_base_plus": "sam2_b.pt", "sam2_0_large": "sam2_l.pt",
}  # fmt: skip
"""How ultralytics names files of the networks that it has too: the name says the architecture."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Weights and where they compute: `config` is a choice of `segment=`, `device` cpu or cuda, `random` weights
    instead of its own. `bf16`: ours in bfloat16 also where nobody would choose it. `compiled`: compiled networks on
    a CPU too, where the first pass of each takes minutes."""

    config: str
    device: str
    random: bool = False
    bf16: bool = False
    compiled: bool = False

    @property
    def segment(self) -> list[str]:
        """As settings. Without a box prior, which sam2's own code has not: parity is asked of the same masks."""
        weights = ["segment.weights=random:0"] if self.random else []
        return [f"segment={self.config}", f"segment.device={self.device}", "segment.box_prior=null", *weights]


class Networks:
    """Networks of one setup, each built when it is first asked for."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._built: dict[tuple[str, ...], Any] = {}

    def ours(self, *settings: str) -> Any:
        """Our segmenter with these settings of `segment`."""
        if settings not in self._built:
            given = [f"segment.{setting}" for setting in settings]
            self._built[settings] = build(compose("label", ["source.path=x", *self.setup.segment, *given]).segment)
        return self._built[settings]

    def library(self) -> Any:
        """The network that sam2's own code computes with, in float32; no layer of it is ours."""
        return self.ours("precision=float32", "batching=image", "linear=torch")._model


@dataclass(frozen=True, slots=True)
class Contestant:
    """`make` gives its call, and may write files of its own into the folder. `arithmetic` is what it computes in, which
    says what its limits are; one that is `judged` fails the benchmark beyond them. `ours` raises, another one that
    does is left out."""

    name: str
    make: Callable[[Networks, Path], Label]
    arithmetic: str = "float32"
    ours: bool = False
    judged: bool = False


def contestants(setup: Setup) -> list[Contestant]:
    """Those that there are for a setup, the reference first."""
    strongest = "bfloat16" if runs_bf16(setup.device) else "float32"
    found = [
        Contestant(REFERENCE, lambda networks, _: partial(predictor_loop, predictor_of(networks.library()))),
        Contestant(
            "predictor, one call a box", lambda networks, _: partial(box_by_box, predictor_of(networks.library()))
        ),
        Contestant(
            "predictor, set_image_batch",
            lambda networks, _: partial(batched, predictor_of(networks.library())),
            strongest,
        ),
    ]
    if setup.device == "cuda" or setup.compiled:
        found.append(Contestant("predictor, set_image_batch, compiled", compiled_predictor, strongest))
    if setup.config in ULTRALYTICS:
        found.append(Contestant("ultralytics SAM", ultralytics_loop))
    found += [
        our_own("autolabel", "precision=float32", "batching=image"),
        our_own("autolabel, buckets", "precision=float32", "batching=bucket"),
    ]
    if setup.compiled:
        found.append(our_own("autolabel, compiled", "precision=float32", "batching=auto", "compile_mode=default"))
    offered = offers_bf16(setup)
    if offered or setup.bf16:
        # Random weights have logits near 0: how far bfloat16 moves their masks says nothing about trained ones.
        judged = offered and not setup.random
        found.append(our_own("autolabel, bfloat16", "precision=bfloat16", "batching=auto", judged=judged))
        if setup.compiled:
            settings = "precision=bfloat16", "batching=auto", "compile_mode=default"
            found.append(our_own("autolabel, bfloat16, compiled", *settings, judged=judged))
    return found


def our_own(name: str, *settings: str, judged: bool = True) -> Contestant:
    arithmetic = "bfloat16" if "precision=bfloat16" in settings else "float32"
    return Contestant(
        name, lambda networks, _: partial(ours, networks.ours(*settings)), arithmetic, ours=True, judged=judged
    )


def offers_bf16(setup: Setup) -> bool:
    """Whether the device is fast in bfloat16, and the choice does not rule it out."""
    return (
        runs_bf16(setup.device)
        and compose("label", ["source.path=x", *setup.segment]).segment.precision != "float32"
    )


def absent(setup: Setup) -> list[str]:
    """Programs that a reader may look for, and why they are not among the contestants."""
    found = [
        "auto_annotate of ultralytics (has a detector too: benchmarks.pipeline)",
        "Ray (benchmarks.ray_engine)",
    ]
    if find_spec("torchao") is None:
        found.append("sam2_amg_server of torchao (torchao is not installed)")
    else:
        found.append("sam2_amg_server of torchao (was taken out of torchao)")
    if setup.config not in ULTRALYTICS:
        found.append(f"ultralytics SAM (has no network such as {setup.config})")
    if not (setup.device == "cuda" or setup.compiled):
        found.append("compiled networks (on a CPU that takes longer than these pictures; --compiled)")
    if not (offers_bf16(setup) or setup.bf16):
        found.append(
            f"ours in bfloat16 (slow here, or ruled out by segment={setup.config}; --bf16 shows it all the same)"
        )
    return found


def predictor_of(model: Any) -> Any:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    # The predictor writes down the feature sizes of a 1024 px model.
    predictor._bb_feat_sizes = [(model.image_size // stride,) * 2 for stride in (4, 8, 16)]
    return predictor


def predictor_loop(predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path) -> Answers:
    """As the notebook image_predictor_example.ipynb of sam2 and grounded_sam2_local_demo.py of Grounded-SAM-2."""
    found: Answers = []
    for path, some in zip(paths, boxes, strict=True):
        with torch.inference_mode():
            predictor.set_image(read(path))
            masks, scores, _ = predictor.predict(box=some, multimask_output=False)
        found.append(answers_of(masks, scores))
        save(out, path, found[-1])
    return found


def box_by_box(predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path) -> Answers:
    """As autodistill-grounded-sam-2, grounded_sam_2.py: one `predict` a box."""
    found: Answers = []
    for path, some in zip(paths, boxes, strict=True):
        with torch.inference_mode():
            predictor.set_image(read(path))
            parts = [predictor.predict(box=box, multimask_output=False) for box in some]
        found.append([answer for masks, scores, _ in parts for answer in answers_of(masks, scores)])
        save(out, path, found[-1])
    return found


def batched(
    predictor: Any, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path, size: int = 4
) -> Answers:
    """The predictor's own batch calls, in bfloat16 where the processor has it: its strongest form."""
    device = predictor.device.type
    half = torch.autocast(device, torch.bfloat16) if runs_bf16(device) else nullcontext()
    found: Answers = []
    for start in range(0, len(paths), size):
        part = slice(start, start + size)
        with torch.inference_mode(), half:
            predictor.set_image_batch([read(path) for path in paths[part]])
            masks, scores, _ = predictor.predict_batch(box_batch=list(boxes[part]), multimask_output=False)
        for path, some, theirs in zip(paths[part], masks, scores, strict=True):
            found.append(answers_of(some, theirs))
            save(out, path, found[-1])
    return found


def compiled_predictor(networks: Networks, _: Path) -> Label:
    """`batched` with `compile_image_encoder` of sam2_base.py, on a network of its own."""
    model = Networks(networks.setup).library()
    encoder = model.image_encoder
    mode = "max-autotune" if networks.setup.device == "cuda" else "default"
    encoder.forward = torch.compile(encoder.forward, mode=mode, fullgraph=True, dynamic=False)
    return partial(batched, predictor_of(model))


def ultralytics_loop(networks: Networks, folder: Path) -> Label:
    """As ultralytics/data/annotator.py after its detector; it writes polygons, and letterboxes the picture."""
    weights = ultralytics_file(networks, folder)
    with ultralytics_at_bay():
        from ultralytics import SAM

        model = SAM(str(weights))

    def label(paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        for path, some in zip(paths, boxes, strict=True):
            image = read_bgr(path)
            results = model(image, bboxes=some, verbose=False, save=False, device=networks.setup.device)
            outlines = [] if results[0].masks is None else results[0].masks.xyn
            rows = ["0 " + " ".join(map(str, s.reshape(-1).tolist())) for s in outlines if len(s) >= 3]
            (out / f"{path.stem}.txt").write_text("\n".join(rows) + "\n")

    return label


def ultralytics_file(networks: Networks, folder: Path) -> Path:
    """The weights that all have, in a file as ultralytics reads them."""
    path = folder / ULTRALYTICS[networks.setup.config]
    torch.save({"model": networks.library().state_dict()}, path)
    return path


def ours(
    segmenter: Segmenter, paths: Sequence[Path], boxes: Sequence[np.ndarray], out: Path, size: int = 8
) -> Answers:
    """The decoder, the segmenter and the batches that `autolabel label` uses."""
    found: Answers = []
    for start in range(0, len(paths), size):
        part = slice(start, start + size)
        frames = [load_frame(ImageRef(p.name, str(p)), max_pixels=10**9, min_side=1) for p in paths[part]]
        answers = segmenter.segment(frames, [Prompts(some) for some in boxes[part]])
        for path, some, given in zip(paths[part], boxes[part], answers, strict=True):
            found.append(by_prompt(given, len(some)))
            save(out, path, found[-1])
    return found


def by_prompt(given: Sequence[PromptedMask], count: int) -> list[Answer | None]:
    """An entry a prompt, in order; None where none was given."""
    found = {answer.prompt: Answer(answer.mask, answer.predicted_iou) for answer in given}
    return [found.get(prompt) for prompt in range(count)]


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB"))


def answers_of(masks: np.ndarray, scores: np.ndarray) -> list[Answer | None]:
    """Of what the predictor gives for N boxes: masks (N, 1, H, W) or, of one box, (1, H, W), and as many scores."""
    flat = masks.reshape(-1, *masks.shape[-2:])
    return [Answer(encode(mask > 0), float(score)) for mask, score in zip(flat, scores.reshape(-1), strict=True)]


def save(out: Path, path: Path, answers: Sequence[Answer | None]) -> None:
    """Run lengths and scores of one picture as JSON."""
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        None if one is None else {"size": list(one.mask.size_hw), "counts": one.mask.counts.decode("ascii"), "score": one.score}
        for one in answers
    ]  # fmt: skip
    (out / f"{path.stem}.json").write_text(json.dumps(rows))


def saved(out: Path, name: str) -> list[Answer | None]:
    """What `save` wrote of the picture of that name."""
    rows = json.loads((out / f"{Path(name).stem}.json").read_text())
    return [
        None
        if row is None
        else Answer(Rle((row["size"][0], row["size"][1]), row["counts"].encode()), row["score"])
        for row in rows
    ]
