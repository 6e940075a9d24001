"""The seams, in the order of the data. A component is anything that fits; there is no base class and no registry.
What only some components can do or say is a protocol of its own behind the seam: who has its members has the ability.

Calls are batched and remember nothing: same input, same output, from any thread. Output order is input order.
What a call is given is read, never written into: the next stage is given the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from autolabel.core.types import (
    Category,
    Columns,
    Detections,
    Dropped,
    Frame,
    ImageInfo,
    ImageRecord,
    ImageRef,
    Instance,
    Instances,
    Labels,
    PromptedMask,
    Prompts,
)


class Source(Protocol):
    """Where pictures come from."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """Classes that the source declares; empty for bare pictures."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Files seen and left alone, counted by reason or extension; complete after `images()` is exhausted."""

    @property
    def document(self) -> str:
        """The source's fields about the data set as a whole (COCO `info`, `licenses`), as the text of a JSON
        object; "" when there are none."""

    def images(self) -> Iterator[ImageRef]:
        """Every picture once, in a fixed order. Raises SourceError when the input as a whole is unusable."""


@runtime_checkable
class Inferred(Protocol):
    """A Source that was chosen by looking at the path."""

    @property
    def kind(self) -> str:
        """Which one it is; "" where nothing had to be looked at."""

    @property
    def reason(self) -> str:
        """What was seen there."""


class Detector(Protocol):
    """Pictures to boxes."""

    @property
    def categories(self) -> tuple[Category, ...] | None:
        """The classes it can find; None when they are the source's."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides its numbers beside its config, as texts: weights' sha256, device kind, precision.

        An entry called as a setting that is a place (`weights`, `device`, `box_prior`, `file`, `run`; `file sha256`
        too) counts in its stead, so that the file may move; "" where it comes to nothing. A place without one counts
        as it is written."""

    def detect(self, frames: Sequence[Frame]) -> list[Detections]: ...


@runtime_checkable
class FindsNew(Protocol):
    """A Detector beside which prompts may find objects of their own; beside others nobody may."""

    @property
    def class_of_new(self) -> int | None:
        """The id of their class; None: they have none, and nobody may find any."""


@runtime_checkable
class HandsOn(Protocol):
    """A Detector whose boxes bring along what the source's annotations have."""

    @property
    def hands_on(self) -> frozenset[str]:
        """The kinds that are handed on: some of `ids`, `keypoints` and `masks`."""


About = Literal["boxes", "masks", "keypoints", "names", "everything"]
"""What questions are about: the boxes of detections, their masks or keypoints, objects called by the ids of annotations
or by names of their own, or whatever is in the picture."""


class Prompter(Protocol):
    """What is known of an image to questions: any number of prompts for each detection that wants a mask, or for
    objects that no detector found."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides its questions beside its config, as `Detector.identity`: the content of files that it reads."""

    def prompt(
        self, frames: Sequence[Frame], detections: Sequence[Detections], asked: Sequence[Sequence[int]]
    ) -> list[Prompts]:
        """The detections `asked[i]` of image i want a mask; their boxes are sound and clipped. The others are there
        to be taken into account; prompts for them are left out, as the source's masks stay."""


@runtime_checkable
class AsksAbout(Protocol):
    """A Prompter that says what its questions are about: a detector that cannot go with it is refused beforehand."""

    @property
    def about(self) -> About: ...


@runtime_checkable
class AsksAnnotations(AsksAbout, Protocol):
    """A Prompter that asks about the `masks` or `keypoints` of annotations: whether they have some is looked at before
    labelling."""

    @property
    def box_alone(self) -> bool:
        """Whether an annotation that has none is asked for with its box; else it is dropped."""

    def knows(self, labels: Labels, row: int) -> bool:
        """Whether annotation `row` has what it asks with."""


@runtime_checkable
class AsksNames(AsksAbout, Protocol):
    """A Prompter that asks about `names` in a file: whether pictures and annotations have them is looked at before
    labelling."""

    @property
    def file(self) -> str | None:
        """The setting of this name, for messages."""

    @property
    def image_ids(self) -> frozenset[str]:
        """The pictures that the file names."""

    def names_in(self, image_id: str) -> Sequence[str]:
        """The objects of a picture, as the file calls them."""


class Segmenter(Protocol):
    """Questions to masks. Answers name their prompt, so an unanswered prompt never shifts another's class."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Like `Detector.identity`."""

    def segment(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> list[list[PromptedMask]]: ...


Later = Callable[[], list[list[PromptedMask]]]
"""What a segmenter answers, when it is there; for any thread, once, and without pixels."""


@runtime_checkable
class LateSegmenter(Segmenter, Protocol):
    """One that need not be waited for: its device computes while the next pictures are looked at."""

    def begin(self, frames: Sequence[Frame], prompts: Sequence[Prompts]) -> Later:
        """Like `segment`, whose answers come with the call of what is returned. ImageErrors are raised here."""


class Refiner(Protocol):
    """Keeps, changes or drops. Every instance comes back once: kept, or dropped with a reason. Its mask (`with_mask`)
    and `quality` may be others; nothing else of it is ever changed, `index` least of all."""

    def refine(self, instances: Sequence[Instance], image: ImageInfo) -> tuple[list[Instance], list[Dropped]]: ...


@runtime_checkable
class ForClasses(Protocol):
    """A Refiner that needs to know the classes of the run."""

    def for_classes(self, categories: Sequence[Category]) -> Refiner:
        """The one that is asked. Raises ConfigError for classes that its settings do not fit."""


@runtime_checkable
class Identified(Protocol):
    """A Refiner that something beside its config decides."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Like `Detector.identity`."""


class InstanceModel(Protocol):
    """Pictures to objects with masks in one step, without boxes and prompts in between."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes it can find."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Like `Detector.identity`."""

    def find(self, frames: Sequence[Frame]) -> list[Instances]:
        """The objects of each image; `index` is their position. One with a box but no usable mask has none."""


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """A batch ends with the picture that makes it `pictures` many, or its decoded pixels `megabytes` (of 2**20)."""

    pictures: int
    megabytes: int

    def reached(self, loaded: Sequence[Frame | ImageRecord]) -> bool:
        num_bytes = sum(one.image_rgb.nbytes for one in loaded if isinstance(one, Frame))
        return len(loaded) >= self.pictures or num_bytes >= self.megabytes * 2**20


Finish = Callable[[], list[ImageRecord]]
"""What is left to do about pictures that the models have seen: gives their records, from any thread, once, and holds no
pixels."""


class Labeler(Protocol):
    """What is computed. Knows no threads."""

    @property
    def batch_limit(self) -> BatchLimit:
        """How many pictures `find` is given together: each batch of a unit goes up to it; engines keep to that."""

    def load(self, ref: ImageRef) -> Frame | ImageRecord:
        """The decoded picture, or its final `failed` record. Safe from any thread."""

    def find(self, loaded: Sequence[Frame | ImageRecord]) -> Finish:
        """The models' part. What finishes it gives one record an input, in order. Records pass through."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A fixed run of consecutive manifest entries: batching, commit and resume. `start` is the first ordinal."""

    number: int
    start: int
    refs: tuple[ImageRef, ...]


class RecordSink(Protocol):
    """Where finished units go. One writer."""

    def commit(self, unit: Unit, records: Sequence[ImageRecord]) -> None:
        """All records of the unit in one transaction; a unit that is already there is left alone."""


class Engine(Protocol):
    """When and where. Every engine gives equal records."""

    def run(self, labeler: Labeler, units: Iterable[Unit], sink: RecordSink) -> None:
        """Label every unit and commit it. Leaves no thread behind, whatever raises."""


class RecordReader(Protocol):
    """A finished run, as exporters see it."""

    @property
    def categories(self) -> tuple[Category, ...]: ...

    @property
    def document(self) -> str:
        """See `Source.document`."""

    def records(self) -> Iterator[ImageRecord]:
        """Every image's record in manifest order, streamed; can be called again."""


@runtime_checkable
class ColumnReader(Protocol):
    """A RecordReader that can leave out the making of objects."""

    def columns(self) -> Iterator[tuple[ImageRecord, Columns | None]]:
        """Like `records`. A record with columns has its kept objects there, one at least, and no candidates."""


@runtime_checkable
class DigestReader(Protocol):
    """A RecordReader that can tell whether its records are those of another time."""

    def digest(self) -> str:
        """A checksum of all that `records` gives; equal records have equal ones, wherever the run is."""


@runtime_checkable
class SettingsReader(Protocol):
    """A RecordReader in the hands of an exporter whose settings the export's manifest is to tell."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The settings as in the exporter's configuration: plain values."""


LOST = ("images_missing", "images_changed")
"""How exporters count labelled pictures that cannot be read any more, or are not the ones that were labelled."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an exporter wrote, and what its format could not hold.

    `files` are relative to the output folder: those at its top by name, the others as the folder they are in.
    `notes` are lines for the summary ("3 objects of several parts are joined by 1-px bridges; lowest IoU 0.981"),
    `counts` the numbers behind them.
    """

    files: tuple[str, ...]
    images: int
    instances: int
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def lost(self) -> int:
        """How many labelled pictures are left out since they could not be taken over."""
        return sum(self.counts.get(key, 0) for key in LOST)


@dataclass(frozen=True, slots=True)
class Deviation:
    """An object that a format did not give back pixel by pixel: `iou` with the run's mask (0: it is not there),
    and why. `expected` where settings or the format's limits, which the export's report tells, account for it."""

    image_id: str
    index: int
    iou: float
    reason: str
    expected: bool = False


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What reading an export back gave: `objects` were compared, and these deviate."""

    objects: int
    deviations: tuple[Deviation, ...]


class Exporter(Protocol):
    """One format."""

    def export(self, run: RecordReader, directory: Path) -> ExportReport:
        """Write the format into `directory` from the records alone. A killed export leaves the old or the new."""

    def read_back(self, run: RecordReader, directory: Path) -> RoundTrip:
        """Read `directory` as the format's consumer does and compare each object's mask with the run's."""


@runtime_checkable
class ClassChecker(Protocol):
    """An Exporter whose format cannot hold whatever classes there are."""

    def check_classes(self, categories: Sequence[Category]) -> None:
        """Raises ExportError for classes of which `export` could write nothing."""
