"""A JSON export of Label Studio, or a file made for its import. What a task says is studio_file.py's to know."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Problem
from autolabel.ops.drawn import BadShape, category_ids, joined, labels_of
from autolabel.ops.settings import one_of, optional, text
from autolabel.ops.storage import absolute
from autolabel.ops.studio_file import RESULTS, Results, StudioTask, read_task, task_labels, task_url
from autolabel.source.locate import check_path, read_label_text
from autolabel.source.places import path_of, pictures_at
from autolabel.source.walk import Tree, extension, walk

_MAX_BYTES = 8 << 30
_PEEK = 1 << 16
_TASK_WORDS = (b'"data"', b'"annotations"', b'"predictions"')


class LabelStudioSource:
    """`path` is the JSON, or a folder with several. Categories are all labels in use, sorted, with ids from 1. The
    pictures are looked for by the end of their address (places.py), below `images_dir` or the file's folder; image ids
    are relative to that.

    `data_key` is the part of a task's data that names the picture; null: `image`, or the only value that ends like
    one. `results` says whose answer counts: people's annotations, a model's predictions, or either, people first. A
    task with neither has no labels. Rectangles are boxes without a mask; key points and choices are counted and
    left alone. A region that cannot be read makes its picture `failed:bad_label`.
    """

    document = ""

    def __init__(
        self, *, path: str, images_dir: str | None = None, data_key: str | None = None, results: Results = "either"
    ) -> None:
        self._path = check_path("path", path)
        self._images_dir = optional(check_path, "images_dir", images_dir)
        one_of("results", results, RESULTS)
        self._results = results
        self._data_key = optional(text, "data_key", data_key)
        self._ignored: Counter[str] = Counter()

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(id_, name) for name, id_ in self._ids.items())

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, naming the task's position, when the file as a whole cannot be trusted."""
        pictures = pictures_at(self._tree, [self._url(where, row) for where, row in self._tasks])
        self._ignored = Counter()
        seen: dict[str, str] = {}
        for (where, row), found in zip(self._tasks, pictures, strict=True):
            try:
                task = read_task(row, self._results, self._data_key)
            except BadShape as e:
                raise SourceError(f"{where}: {e}") from e
            image_id = path_of(task.url) if found is None else found
            if image_id in seen:
                raise SourceError(f"{where} and {seen[image_id]} have one picture {image_id!r}")
            seen[image_id] = where
            ref = ImageRef(image_id, self._tree.path(image_id), source_id=task.id, extra=task.extra)
            if found is None:
                place = f"below {self._tree.root!r} no picture is surely this one: none ends so, or several could be it"
                advice = "set source.images_dir to the folder that the addresses begin in or with"
                problem = Problem("missing", f"{where}: {task.url[:200]!r}: {place}; {advice}")
                yield replace(ref, problem=problem)
            else:
                yield self._labelled(ref, task, where)
        self._ignored["pictures without a task"] = len(set(self._tree.images()) - set(pictures))
        self._ignored = +self._ignored

    def _url(self, where: str, row: Any) -> str:
        try:
            return task_url(row, self._data_key)
        except BadShape as e:
            raise SourceError(f"{where}: {e}") from e

    def _labelled(self, ref: ImageRef, task: StudioTask, where: str) -> ImageRef:
        try:
            if task.problem:
                raise BadShape(task.problem)
            objects = joined(task.shapes, task.size_hw)
            labels = labels_of(objects, self._ids, task.size_hw) if task.labelled else None
        except BadShape as e:
            return replace(ref, problem=Problem("bad_label", f"{where}: {e}"))
        self._ignored.update(task.ignored)
        return replace(ref, labels=labels)

    @cached_property
    def _files(self) -> list[str]:
        if not posixpath.isdir(self._path):
            return [self._path]
        found = [posixpath.join(self._path, name) for name in task_files(self._path)]
        if not found:
            raise SourceError(f"{self._path!r} holds no .json with tasks of Label Studio")
        return found

    @cached_property
    def _tree(self) -> Tree:
        beside = self._path if posixpath.isdir(self._path) else posixpath.dirname(absolute(self._path))
        return walk(absolute(self._images_dir or beside))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return category_ids(label for _, task in self._tasks for label in task_labels(task, self._results))

    @cached_property
    def _tasks(self) -> list[tuple[str, Any]]:
        """Each task and where it is."""
        return [(f"{file}: task {n}", task) for file in self._files for n, task in enumerate(_read_tasks(file), 1)]


def task_files(folder: str) -> list[str]:
    """The .json files right in a folder that look like tasks, sorted."""
    names = sorted(os.listdir(folder), key=os.fsencode)  # noqa: PTH208
    return [n for n in names if extension(n) == ".json" and holds_tasks(posixpath.join(folder, n))]


def holds_tasks(path: str) -> bool:
    """Whether a file looks like a list of tasks, from its first bytes."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(_PEEK).removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return False
    return re.match(rb"\s*\[\s*\{", head) is not None and any(word in head for word in _TASK_WORDS)


def _read_tasks(file: str) -> list[Any]:
    text = read_label_text(file, _MAX_BYTES)
    try:
        top = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SourceError(f"{file!r} is not JSON: {e}") from e
    if not isinstance(top, list) or not all(isinstance(task, dict) and "data" in task for task in top):
        raise SourceError(
            f"{file!r} is not a Label Studio file: it needs a list of tasks with `data` (export as JSON, not JSON-MIN)"
        )
    return top
