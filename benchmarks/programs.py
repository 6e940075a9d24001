"""Whole programs, from a folder of pictures to labels on disk, each in a process of its own: `autolabel label`, a loop
around `SAM2ImagePredictor`, and `auto_annotate` of ultralytics.

`python -m benchmarks.programs` reads a task from its input and leaves `measured.json` in the task's folder. Every
program has a detector, whose boxes are then replaced by the same ones for all.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.fixed_boxes import CHOICE
from benchmarks.fresh import children, cpu_seconds, gpu_peak_mb, memory_mb, prepare

OURS = "autolabel label"
LOOP = "SAM2ImagePredictor in a loop"
HALF_LOOP = "SAM2ImagePredictor in a loop, bfloat16"
ANNOTATE = "auto_annotate"
HALF_ANNOTATE = "auto_annotate, quantize=16"


@dataclass(frozen=True, slots=True)
class Task:
    """What a program is to do: `pictures` is a folder, `boxes` a JSON file of their boxes by name, `out` where
    labels go. `detect` and `segment` are settings; `detector_file` and `segmenter_file` the same models as
    ultralytics reads them, "" where it cannot. `settings` are further ones, of ours alone. `threads` are torch's,
    0: as many as it likes. `watched`: also say which of its four masks each prompt got; then no time counts."""

    program: str
    pictures: str
    boxes: str
    out: str
    device: str
    detect: Sequence[str]
    segment: Sequence[str]
    detector_file: str = ""
    segmenter_file: str = ""
    settings: Sequence[str] = ()
    threads: int = 0
    watched: bool = False


class Mark(NamedTuple):
    """`done` pictures have their labels on disk: when, in seconds of the monotonic clock, which all processes
    share, and after how many CPU seconds of the process and its decoders."""

    when: float
    done: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """`stages` are seconds by stage, where a program says; `arithmetic` is what its masks are computed in."""

    marks: Sequence[Mark]
    arithmetic: str
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one process: `began` is when it was started, `ended` when its last file was written, after `cpu_s`;
    resident memory at the most of itself, and of its decoders together; the GPU's; MB."""

    progress: Progress
    began: float
    ended: float
    cpu_s: float
    peak_mb: float
    others_mb: float
    gpu_mb: float | None
    choices: Sequence[int] = ()


def main() -> None:
    given = json.loads(sys.stdin.read())
    task = Task(**given["task"])
    prepare(task.threads)
    found = measured(task, given["began"])
    (Path(task.out) / "measured.json").write_text(json.dumps(asdict(found)))


def read_measured(out: Path) -> Measured:
    found = json.loads((out / "measured.json").read_text())
    progress = found["progress"]
    marks = [Mark(*mark) for mark in progress["marks"]]
    return Measured(**{**found, "progress": Progress(**{**progress, "marks": marks})})


def measured(task: Task, began: float) -> Measured:
    from benchmarks.parity import choices

    Path(task.out).mkdir(parents=True, exist_ok=True)
    watching: AbstractContextManager[list[int]] = choices() if task.watched else nullcontext([])
    with watching as chosen:
        progress = PROGRAMS[task.program](task)
    return Measured(
        progress=progress,
        began=began,
        ended=time.monotonic(),
        cpu_s=cpu_seconds(),
        peak_mb=memory_mb("VmHWM"),
        others_mb=sum(memory_mb("VmHWM", process) for process in children()),
        gpu_mb=gpu_peak_mb(task.device),
        choices=chosen,
    )


def ours(task: Task) -> Progress:
    """The command as it is; a mark a commit."""
    from omegaconf import OmegaConf

    from autolabel.app.compose import compose
    from autolabel.app.label import label
    from autolabel.core.protocols import Unit
    from autolabel.core.types import ImageRecord
    from autolabel.ops.device import choose_precision
    from autolabel.store.run import RunStore

    configs = Path(task.out) / "configs"
    (configs / "detect").mkdir(parents=True, exist_ok=True)
    (configs / "detect" / "fixed.yaml").write_text(CHOICE)
    choice, *rest = task.detect
    detect = [choice.replace("detect=", "detect@detect.inner="), *(one.replace("detect.", "detect.inner.") for one in rest)]  # fmt: skip
    run, source = f"run={task.out}/run", f"source.path={task.pictures}"
    config = compose(
        "label",
        ["detect=fixed", f"detect.file={task.boxes}", *detect, *task.segment, source, run, *task.settings],
        str(configs),
    )
    marks: list[Mark] = []
    commit = RunStore.commit

    def committed(self: RunStore, unit: Unit, records: Sequence[ImageRecord]) -> None:
        commit(self, unit, records)
        marks.append(marked((marks[-1].done if marks else 0) + len(records)))

    RunStore.commit = committed  # type: ignore[method-assign]  # a mark a commit, in a process of its own
    summary = label(config)
    if summary.exit_code:
        raise RuntimeError(f"autolabel label ended with {summary.exit_code}: {summary.text()}")
    decided = OmegaConf.load(Path(task.out) / "run" / "config.yaml").segment.precision
    arithmetic = choose_precision(decided, task.device, key="segment.precision")
    return Progress(marks, arithmetic, dict(summary.invocation.stages) if summary.invocation else {})


def loop(task: Task) -> Progress:
    """As the notebook image_predictor_example.ipynb of sam2, behind a detector: one picture after the other."""
    return in_a_loop(task, "float32")


def half_loop(task: Task) -> Progress:
    """The same under autocast, as sam2's README has it for a GPU."""
    return in_a_loop(task, "bfloat16")


def in_a_loop(task: Task, arithmetic: str) -> Progress:
    import torch

    from autolabel.app.build import build
    from autolabel.app.compose import compose
    from autolabel.core.types import Frame, ImageInfo, ImageRef
    from benchmarks.contestants import answers_of, predictor_of, save

    # The network as sam2's own code computes it.
    exact = ["segment.precision=float32", "segment.batching=image", "segment.linear=torch"]
    config = compose("label", [*task.detect, *task.segment, *exact, "source.path=x"])
    detector, predictor = build(config.detect), predictor_of(build(config.segment)._model)
    boxes = boxes_by_name(task)
    marks: list[Mark] = []
    for path in sorted(Path(task.pictures).iterdir()):
        image = np.array(Image.open(path).convert("RGB"))
        detector.detect([Frame(ImageRef(path.name, str(path)), image, ImageInfo(image.shape[1], image.shape[0]))])
        half = torch.autocast(task.device, torch.bfloat16) if arithmetic == "bfloat16" else nullcontext()
        with torch.inference_mode(), half:
            predictor.set_image(image)
            masks, scores, _ = predictor.predict(box=boxes[path.name], multimask_output=False)
        save(Path(task.out) / "masks", path, answers_of(masks, scores))
        marks.append(marked(len(marks) + 1))
    return Progress(marks, arithmetic)


def annotate(task: Task) -> Progress:
    """ultralytics/data/annotator.py as it is; a mark a picture."""
    return annotated(task)


def half_annotate(task: Task) -> Progress:
    """The same in float16, which `auto_annotate` has no argument for."""
    return annotated(task, quantize=16)


def annotated(task: Task, **more: int) -> Progress:
    import torch

    from autolabel.weights.quiet import ultralytics_at_bay

    boxes = boxes_by_name(task)
    marks: list[Mark] = []
    with ultralytics_at_bay():
        from ultralytics.data import annotator
        from ultralytics.engine.results import Boxes

        class Detector(annotator.YOLO):
            """Its boxes are replaced, and it says when it is asked for the next picture."""

            def __call__(self, *arguments: Any, **settings: Any) -> Iterator[Any]:
                for result in super().__call__(*arguments, **settings, **more):
                    some = torch.from_numpy(boxes[Path(result.path).name]).to(result.boxes.data.device)
                    score_and_class = some.new_tensor([0.9, 0.0]).expand(len(some), 2)
                    result.boxes = Boxes(torch.cat([some, score_and_class], dim=1), result.orig_shape)
                    yield result
                    marks.append(marked(len(marks) + 1))

        class Segmenter(annotator.SAM):
            def __call__(self, *arguments: Any, **settings: Any) -> Any:
                return super().__call__(*arguments, **settings, **more)

        annotator.YOLO, annotator.SAM = Detector, Segmenter
        annotator.auto_annotate(
            task.pictures,
            task.detector_file,
            task.segmenter_file,
            device=task.device,
            output_dir=f"{task.out}/labels",
        )
    return Progress(marks, "float16" if more else "float32")


def marked(done: int) -> Mark:
    return Mark(time.monotonic(), done, cpu_seconds())


def boxes_by_name(task: Task) -> dict[str, np.ndarray]:
    found = json.loads(Path(task.boxes).read_text())
    return {name: np.array(some, np.float32).reshape(-1, 4) for name, some in found.items()}


PROGRAMS: Mapping[str, Callable[[Task], Progress]] = {
    OURS: ours,
    LOOP: loop,
    HALF_LOOP: half_loop,
    ANNOTATE: annotate,
    HALF_ANNOTATE: half_annotate,
}


if __name__ == "__main__":
    main()
