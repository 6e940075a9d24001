"""All the numbers of a run in one streamed pass, and the few objects that are worth a picture. Memory grows with the
number of classes and of distinct picture files, not with that of objects. Opens no picture.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autolabel.core.types import ImageInfo, ImageRecord, Instance
from autolabel.report.sampling import Lowest, lot

FINE_BINS = 1000
SIZE_EDGES = tuple(round(2 ** (i / 2), 1) for i in range(2, 25))
"""Edges of the histogram of object sizes: the square root of the area in pixels, from 2 to 4096."""
SMALL_PX, LARGE_PX = 32**2, 96**2
"""COCO's limits between small, medium and large objects."""
SCORES = ("quality", "predicted_iou", "detector_score", "stability", "object_score", "agreement")
GALLERY_SCORES = ("quality", "predicted_iou", "detector_score")
"""What a gallery is sorted by: the first of these that the run's objects have."""
BLOCK = 32
"""Consecutive pictures that are sampled together for the search for near-duplicates: bursts lie side by side."""


@dataclass(slots=True)
class Scores:
    """Values in [0, 1] as a fine histogram; what lies outside counts at the nearest end."""

    counts: list[int] = field(default_factory=lambda: [0] * FINE_BINS)
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        kept = min(max(value, 0.0), 1.0) if value == value else 0.0
        self.counts[min(int(kept * FINE_BINS), FINE_BINS - 1)] += 1
        self.count += 1
        self.total += kept

    @property
    def says_something(self) -> bool:
        """Whether there are values, and not 1 alone: that is what boxes from labels have."""
        return self.count > 0 and self.total < self.count

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Exact to half a bin, 0.0005."""
        if not self.count:
            return None
        reached = int(np.searchsorted(np.cumsum(self.counts), share * self.count))
        return (min(reached, FINE_BINS - 1) + 0.5) / FINE_BINS

    def bins(self, count: int) -> list[int]:
        """A coarser histogram; `count` divides FINE_BINS."""
        return [int(n) for n in np.reshape(self.counts, (count, -1)).sum(axis=1)]


@dataclass(slots=True)
class ClassTally:
    """One class: objects kept and dropped, pictures with one at least, and sums over those kept."""

    kept: int = 0
    dropped: int = 0
    pictures: int = 0
    area_px: int = 0
    scored: Counter[str] = field(default_factory=Counter)
    totals: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def mean(self, score: str) -> float | None:
        return self.totals[score] / self.scored[score] if self.scored[score] else None


@dataclass(frozen=True, slots=True)
class Found:
    """An object of a picture, and the number that it was chosen for."""

    record: ImageRecord
    instance: Instance
    value: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    image_id: str
    code: str
    detail: str


@dataclass(slots=True)
class Limits:
    """How many are kept for pictures and lists."""

    gallery: int = 12
    examples: int = 4
    failures: int = 1000
    reasons: int = 12
    hashed: int = 10_000
    seed: int = 0


class Tally:
    """Counts of a run; `add` every record once, in manifest order."""

    def __init__(self, limits: Limits, wanted: Mapping[str, Sequence[int]] | None = None) -> None:
        """`wanted` names objects (image id, indices) to hand out in `found`."""
        self.limits = limits
        self.images = 0
        self.status: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.splits: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.picture_sizes: Counter[tuple[int, int]] = Counter()
        self.failures: list[Failure] = []
        self.objects_per_picture: Counter[int] = Counter()
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.classes: defaultdict[int, ClassTally] = defaultdict(ClassTally)
        self.sizes = [0] * (len(SIZE_EDGES) - 1)
        self.by_size: Counter[str] = Counter()
        self.scores = {name: Scores() for name in SCORES}
        self.fit = Scores()
        self.replaced = Scores()
        self.origins: Counter[str] = Counter()
        self.copies = Copies(limits)
        self.found: dict[tuple[str, int], Found] = {}
        self._wanted = wanted or {}
        self._worst = {name: Lowest[Found](limits.gallery) for name in GALLERY_SCORES}
        self._best = {name: Lowest[Found](limits.gallery) for name in GALLERY_SCORES}
        self._random = Lowest[ImageRecord](limits.gallery)
        self._misfits = Lowest[Found](limits.gallery)
        self._examples: dict[str, Lowest[Found]] = {}

    def add(self, record: ImageRecord) -> None:
        self.images += 1
        self.status[record.status] += 1
        self.splits[record.split or ""] += 1
        if record.code:
            self.codes[f"{record.status}: {record.code}"] += 1
        if record.status in ("failed", "skipped") and len(self.failures) < self.limits.failures:
            self.failures.append(Failure(record.image_id, record.code, record.detail))
        if record.info is not None:
            self._add_picture(record, record.info)
        self._add_objects(record)

    @property
    def ranked_by(self) -> str | None:
        """The score that the galleries are sorted by; None for a run without objects."""
        return next((name for name in GALLERY_SCORES if self.scores[name].count), None)

    def worst(self) -> list[Found]:
        return [] if self.ranked_by is None else self._worst[self.ranked_by].items()

    def best(self) -> list[Found]:
        return [] if self.ranked_by is None else self._best[self.ranked_by].items()

    def random(self) -> list[ImageRecord]:
        """Labelled pictures, by lot."""
        return self._random.items()

    def misfits(self) -> list[Found]:
        """The objects kept whose mask fits its box worst; those that fit are not among them."""
        return self._misfits.items()

    def examples(self, reason: str) -> list[Found]:
        """Dropped objects of a reason, by lot."""
        return self._examples[reason].items() if reason in self._examples else []

    def _add_picture(self, record: ImageRecord, info: ImageInfo) -> None:
        self.picture_sizes[info.width, info.height] += 1
        self.notes.update(info.notes)
        if info.orientation != 1:
            self.notes["turned_upright"] += 1
        if record.status in ("ok", "empty"):
            self.objects_per_picture[sum(v.reason is None for v in record.verdicts)] += 1
            chance = lot(self.limits.seed, record.image_id)
            if self._random.takes(chance):
                self._random.add(chance, record.image_id, record)
            self.copies.add(record, info)

    def _add_objects(self, record: ImageRecord) -> None:
        kept = record.instances
        for instance in kept:
            self._add_kept(record, instance)
        for category_id in {instance.category_id for instance in kept}:
            self.classes[category_id].pictures += 1
        self._rank(record, kept)
        for one in record.dropped:
            self._add_dropped(record, one.instance, one.reason)
        for index in self._wanted.get(record.image_id, ()):
            if 0 <= index < len(record.candidates):
                self.found[record.image_id, index] = Found(record, record.judged(index), 0.0)

    def _add_kept(self, record: ImageRecord, instance: Instance) -> None:
        from autolabel.ops.box_fit import box_fit
        from autolabel.ops.masks import area_px

        assert instance.mask is not None, "kept objects have a mask"
        self.kept += 1
        self.origins[instance.origin] += 1
        of_class = self.classes[instance.category_id]
        of_class.kept += 1
        area = area_px(instance.mask)
        of_class.area_px += area
        self.sizes[_size_bin(area)] += 1
        self.by_size["small" if area < SMALL_PX else "medium" if area < LARGE_PX else "large"] += 1
        for name in SCORES:
            value = getattr(instance, name)
            if value is not None and not (name == "detector_score" and instance.origin == "label"):
                self.scores[name].add(value)
                of_class.scored[name] += 1
                of_class.totals[name] += value
        if instance.replaced_iou is not None:
            self.replaced.add(instance.replaced_iou)
        if record.info is not None and instance.origin == "model":
            fit = box_fit(instance, record.info.size_hw)
            self.fit.add(fit)
            if fit < 0.9 and self._misfits.takes(fit):
                self._misfits.add(fit, record.image_id, Found(record, instance, fit))

    def _rank(self, record: ImageRecord, kept: Sequence[Instance]) -> None:
        """The worst and the best object of each picture stand for it."""
        for name in GALLERY_SCORES:
            scored = [(value, i) for i in kept if (value := getattr(i, name)) is not None]
            if not scored:
                continue
            low = min(scored, key=lambda pair: (pair[0], pair[1].index))
            high = max(scored, key=lambda pair: (pair[0], -pair[1].index))
            if self._worst[name].takes(low[0]):
                self._worst[name].add(low[0], record.image_id, Found(record, low[1], low[0]))
            if self._best[name].takes(-high[0]):
                # Many a model says the same highest score often; then it is by lot.
                tie = f"{lot(self.limits.seed, record.image_id):.12f}"
                self._best[name].add(-high[0], tie, Found(record, high[1], high[0]))

    def _add_dropped(self, record: ImageRecord, instance: Instance, reason: str) -> None:
        word = reason.partition(":")[0]
        self.dropped[word] += 1
        self.classes[instance.category_id].dropped += 1
        if word not in self._examples and len(self._examples) >= self.limits.reasons:
            return
        examples = self._examples.setdefault(word, Lowest[Found](self.limits.examples))
        chance = lot(self.limits.seed, f"{record.image_id}/{instance.index}")
        if examples.takes(chance) and record.info is not None:
            examples.add(chance, record.image_id, Found(record, instance, chance, reason))


@dataclass(frozen=True, slots=True)
class Copy:
    """A picture file that is there more than once: the ids of all, and one record to show."""

    record: ImageRecord
    image_ids: tuple[str, ...]
    splits: frozenset[str]


class Copies:
    """Equal files by their sha256, over all pictures; and a choice of different ones to look for similar pictures."""

    def __init__(self, limits: Limits) -> None:
        self._seen: dict[bytes, tuple[str, str]] = {}
        self._again: dict[bytes, list[tuple[str, str]]] = {}
        self._shown: dict[bytes, ImageRecord] = {}
        self._blocks = Lowest[list[ImageRecord]](-(-limits.hashed // BLOCK))
        self._block: list[ImageRecord] = []
        self._limits = limits
        self._count = 0
        self.different = 0

    def add(self, record: ImageRecord, info: ImageInfo) -> None:
        key = bytes.fromhex(info.sha256)[:12] if len(info.sha256) == 64 else b""
        here = (record.image_id, record.split or "")
        if key and key in self._seen:
            self._again.setdefault(key, [self._seen[key]]).append(here)
            self._shown.setdefault(key, bare(record))
            return
        if key:
            self._seen[key] = here
        self.different += 1
        self._choose(record)

    def groups(self) -> list[Copy]:
        """Files that are there more than once, the most frequent first."""
        found = [
            Copy(self._shown[key], tuple(i for i, _ in all_), frozenset(s for _, s in all_))
            for key, all_ in self._again.items()
        ]
        return sorted(found, key=lambda copy: (-len(copy.image_ids), copy.image_ids))

    def chosen(self) -> list[ImageRecord]:
        """Different pictures to compare, without their objects: blocks of neighbours by lot, at most `hashed`."""
        self._close_block()
        return [record for block in self._blocks.items() for record in block][: self._limits.hashed]

    def _choose(self, record: ImageRecord) -> None:
        if self._limits.hashed == 0:
            return
        if self._count % BLOCK == 0:
            self._close_block()
        self._block.append(bare(record))
        self._count += 1

    def _close_block(self) -> None:
        if self._block:
            number = (self._count - 1) // BLOCK
            self._blocks.add(lot(self._limits.seed, f"block {number}"), f"{number:012}", self._block)
            self._block = []


def bare(record: ImageRecord) -> ImageRecord:
    """The picture without its objects, to be kept in numbers."""
    return replace(record, candidates=(), verdicts=())


def tally(
    records: Iterable[ImageRecord], limits: Limits, wanted: Mapping[str, Sequence[int]] | None = None
) -> Tally:
    """One pass over a run."""
    counted = Tally(limits, wanted)
    for record in records:
        counted.add(record)
    return counted


def _size_bin(area: int) -> int:
    return min(max(bisect(SIZE_EDGES, area**0.5) - 1, 0), len(SIZE_EDGES) - 2)
