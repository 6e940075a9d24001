"""The Python interface: the same configuration and the same pipeline, results handed to the caller."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autolabel.app.build import build, build_all
from autolabel.app.compose import compose
from autolabel.app.label import listed
from autolabel.app.labelers import NO_CLASSES, build_labeler, offline_if
from autolabel.app.overrides import key_of
from autolabel.app.prompts import check_prompts
from autolabel.app.saved import note, require_names_apart, require_none_lost, require_same_classes
from autolabel.core.errors import ConfigError, SourceError
from autolabel.core.protocols import ExportReport, Source, Unit
from autolabel.core.text import printable
from autolabel.core.types import Category, Float32, ImageRecord, ImageRef, Int64
from autolabel.engine.units import batches
from autolabel.ops.storage import absolute, is_url
from autolabel.store.lock import exclusive
from autolabel.store.memory import MemoryStore
from autolabel.weights.quiet import quiet_environment

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from autolabel.engine.labeler import FrameLabeler

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""Errors of file systems without locks: a run is not for them, an export is."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One labelled picture; arrays have one row a kept instance, in the order of `record.instances`."""

    record: ImageRecord
    categories: tuple[Category, ...]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) at the upright picture's size; decoded on every access, N x H x W bytes."""
        from autolabel.ops.masks import decode, mask_of

        if self.record.info is None:
            return np.zeros((0, 0, 0), bool)
        height, width = self.record.info.size_hw
        masks = [decode(mask_of(i)).astype(bool) for i in self.record.instances]
        return np.stack(masks) if masks else np.zeros((0, height, width), bool)

    @property
    def boxes(self) -> Float32:
        """(N, 4) tight boxes of the masks, as exports have them: half-open xyxy in upright pixels; zeros for a mask
        without a pixel."""
        from autolabel.ops.masks import bounds_xyxy, mask_of

        boxes = [bounds_xyxy(mask_of(i)) or (0, 0, 0, 0) for i in self.record.instances]
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def detection_boxes(self) -> Float32:
        """(N, 4) boxes as the detector or the labels gave them, before `prompt.pad`: xyxy in upright pixels; those of
        labels may reach out of the picture. Where nothing but a prompt said that there is an object, the tight box of
        the mask as it was found."""
        return np.array([i.box_xyxy for i in self.record.instances], np.float32).reshape(-1, 4)

    @property
    def classes(self) -> tuple[str, ...]:
        names = {c.id: c.name for c in self.categories}
        return tuple(names[i.category_id] for i in self.record.instances)

    @property
    def category_ids(self) -> Int64:
        return np.array([i.category_id for i in self.record.instances], np.int64)

    @property
    def scores(self) -> Float32:
        """(N,) detector scores."""
        return np.array([i.detector_score for i in self.record.instances], np.float32)

    def save(
        self,
        directory: str | os.PathLike[str],
        formats: Sequence[str] = ("coco", "yolo"),
        *,
        overrides: Sequence[str] = (),
        config_dir: str | None = None,
    ) -> None:
        """Write this picture's labels alone, each format into `directory/<format>`; as `save`, which takes several."""
        save([self], directory, formats, overrides=overrides, config_dir=config_dir)


def save(
    results: Iterable[Result],
    directory: str | os.PathLike[str],
    formats: Sequence[str] = ("coco", "yolo"),
    *,
    overrides: Sequence[str] = (),
    config_dir: str | None = None,
) -> dict[str, ExportReport]:
    """Write the labels of several pictures as one data set a format, into `directory/<format>`; what was saved there
    before is replaced. `overrides` are settings of the formats, for example `["export.yolo.val_fraction=0"]`;
    `config_dir` is a folder of your own configuration files.

    Raises ConfigError for unknown formats and settings and where there is no result, ExportError when two pictures have
    one name, or different classes, and when labels of a picture that is not in `results` would be lost, StoreBusy while
    another process or thread saves there.
    """
    results, formats = _checked_results(results), _texts("formats", formats, '["coco", "yolo"]')
    if not formats:
        raise ConfigError('formats names none; give some, such as ["coco", "yolo"]')
    for override in (overrides := _texts("overrides", overrides, '["export.yolo.val_fraction=0"]')):
        if not key_of(override).startswith("export."):
            raise ConfigError(
                f"{override!r}: save takes settings of formats alone, such as export.yolo.val_fraction=0"
            )
    root = Path(_path("directory", directory))
    store = MemoryStore(results[0].categories)
    records = [result.record for result in results]
    require_names_apart(records)
    require_same_classes([(result.record.image_id, result.categories) for result in results])
    store.commit(Unit(0, 0, tuple(ImageRef(r.image_id, r.path) for r in records)), records)
    config = compose("export", [f"export=[{','.join(formats)}]", *overrides], config_dir)
    exporters = build_all("export", config.export)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{printable(str(root))} cannot be a folder: there is a file of this name") from error
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(root))
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        for name in exporters:
            require_none_lost(root / name, records)
        reports = {}
        for name, exporter in exporters.items():
            reports[name] = exporter.export(store, root / name)
            note(root / name, records)
    return reports


def _checked_results(results: Iterable[Result]) -> list[Result]:
    if isinstance(results, Result):
        raise ConfigError("save takes several results, [result] for one; result.save(...) saves it alone")
    found = list(results) if isinstance(results, Iterable) else [results]
    for one in found:
        if not isinstance(one, Result):
            raise ConfigError(f"save takes what label gives, got a {type(one).__name__}")
    if not found:
        raise ConfigError(
            "there is no result to save; what label gives can be gone through once: keep it in a list"
        )
    return found


def _path(name: str, value: object) -> str:
    """The path as text. Raises ConfigError."""
    if not isinstance(value, str | bytes | os.PathLike):
        raise ConfigError(f"{name} must be a path, got a {type(value).__name__}")
    return os.fsdecode(value)


def _texts(name: str, values: object, example: str) -> list[str]:
    """A list of texts. Raises ConfigError for one text alone, which is a sequence of texts too, and for a mapping."""
    good = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    found = list(values) if good else []  # type: ignore[call-overload]
    if not good or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{name} must be a list of texts such as {example}, got {values!r:.100}")
    return found


class AutoLabeler:
    """Models loaded once, pictures labelled as they come. Create it with `from_config`.

    `categories` are those of the detector; empty with `detect=labels`, where each source brings its own.
    """

    def __init__(self, labeler: FrameLabeler, categories: tuple[Category, ...], config: DictConfig) -> None:
        from autolabel.engine.labeler import FrameLabeler

        if not isinstance(labeler, FrameLabeler):
            raise ConfigError('an AutoLabeler is made with AutoLabeler.from_config(["experiment=offline"])')
        self._labeler = labeler
        self._config = config
        self.categories = categories

    @classmethod
    def from_config(cls, overrides: Sequence[str] = (), *, config_dir: str | None = None) -> AutoLabeler:
        """The pipeline of `autolabel label` with these overrides, for example
        `["experiment=offline", "detect.conf=0.4"]`; `config_dir` is a folder of your own configuration files.
        What is about runs, sources, engines and exports has no effect here; `precision=auto`, which a run decides
        on its pictures, is float32. With `offline=true` the whole process is offline while this one is made or labels.
        Leaves no Hydra state behind; safe from any thread. Raises AutolabelError."""
        overrides = _texts("overrides", overrides, '["experiment=offline"]')
        quiet_environment()
        config = compose("label", overrides, config_dir)
        with offline_if(config.offline):
            return cls(*build_labeler(config, None), config)

    def label(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Result]:
        """One result a picture, in order: of a folder, a label file, a picture, or a list of pictures.

        In a folder or a list, a picture that cannot be used gives a result whose `record.status` is `failed`; nothing
        is raised for it. With `detect=labels`, one that nobody labelled is `skipped`. Where a picture was not decoded,
        `masks` is (0, 0, 0).

        Raises, as the first result is asked for: SourceError where a path given alone is not there or is nothing that
        can be read, and where there is no picture; ConfigError, as the command does, where `prompt.file` or
        `prompt.run` says nothing of any of these pictures, or names an annotation that is not there. For an array or
        an image in the place of a path, ConfigError is raised at once.
        """
        return self._offline(self._results(_checked_paths(paths)))

    def _offline(self, results: Iterator[Result]) -> Iterator[Result]:
        while True:
            # Not around the loop: what the caller does between two results is not ours to forbid.
            with offline_if(self._config.offline):
                result = next(results, None)
            if result is None:
                return
            yield result

    def _results(self, paths: str | Sequence[str]) -> Iterator[Result]:
        from autolabel.engine.labeler import PipelineLabeler

        found, of_source = _refs(paths)
        categories = self.categories or of_source
        if not categories:
            raise ConfigError(NO_CLASSES)
        if isinstance(self._labeler, PipelineLabeler):
            check_prompts(self._labeler.prompter, found, self._config, categories)
        labeler = replace(self._labeler, categories=categories)
        for some in batches(map(labeler.load, found.values()), labeler.batch_limit):
            for record in labeler.label(some):
                yield Result(record, categories)


def _checked_paths(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> str | list[str]:
    """One path as text, or the list of them."""
    if isinstance(paths, str | bytes | os.PathLike):
        return os.fsdecode(paths)
    try:
        given = list(paths)
    except TypeError:  # what is not a list, or an array without a length
        given = [paths]  # type: ignore[list-item]
    for one in given:
        if not isinstance(one, str | bytes | os.PathLike):
            raise ConfigError(
                f"label takes a path or a list of paths, got a {type(one).__name__}; write pictures that are arrays or "
                "images to files first"
            )
    return list(map(os.fsdecode, given))


def _refs(paths: str | Sequence[str]) -> tuple[Mapping[str, ImageRef], tuple[Category, ...]]:
    """The pictures by their ids, and the classes that came with them."""
    if isinstance(paths, str):
        source: Source = build({"_target_": "autolabel.source.infer.AutoSource", "path": paths})
        with listed(source) as refs:
            return {ref.image_id: ref for ref in refs.values()}, source.categories
    if any(map(is_url, paths)):
        raise ConfigError("a list of pictures is of files on this machine; an address is given alone, as a folder")
    files = [absolute(os.path.expanduser(path)) for path in paths]  # noqa: PTH111 - any bytes in a name
    if not files:
        raise SourceError("no pictures were given")
    if twice := [file for file, count in Counter(files).items() if count > 1]:
        raise ConfigError(f"{printable(twice[0])} was given twice")
    root = os.path.dirname(files[0]) if len(files) == 1 else os.path.commonpath(files)  # noqa: PTH120
    return {name: ImageRef(name, f) for f in files for name in [os.path.relpath(f, root)]}, ()
