"""A table of pictures in Parquet: one column holds paths or addresses, all other columns travel with the pictures.

What becomes of a value in `ImageRef.extra` (JSON): truth values, whole numbers and text stay what they are, a missing
value is null. A non-finite float is null too: JSON has no NaN. Dates and times are text as ISO 8601
writes them, to the last digit; durations are whole numbers of the column's unit; decimals are text, so that no
digit is lost. Lists and structs are arrays and objects of such values. Columns of bytes are not fields of a label
file: they are left out, and counted in `ignored`. Reads no labels. Needs the extra `parquet`.
"""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from datetime import time as clock
from typing import Any

from autolabel.core.errors import SourceError
from autolabel.core.types import Category, ImageRef, Problem
from autolabel.ops.arrow import pyarrow
from autolabel.ops.drawn import BadShape, extra_text
from autolabel.ops.settings import optional
from autolabel.ops.storage import absolute, exists, is_folder, is_url, opened, parent
from autolabel.source.locate import check_place, placed
from autolabel.source.walk import extension, files_below

_BATCH = 1024
"""Rows that are in memory together."""
_BUFFER_BYTES = 1 << 20
"""Bytes of a column that are in memory together, however large its row group is."""


class ParquetListSource:
    """`path` is a file, or a folder with Parquet files at any depth, read in the order of their names; it may be an
    address. Paths in `column` are relative to `root` (null: the folder of the file, or `path`), as in a text list;
    where that is an address, the column may hold addresses of the same storage. `split_column` is used where the
    files have it. A row without a path is a failed picture that is called by its file and row. Two rows of one
    picture are an error.
    """

    categories: tuple[Category, ...] = ()
    document = ""

    def __init__(
        self, *, path: str, column: str = "path", root: str | None = None, split_column: str | None = "split"
    ) -> None:
        self._path = check_place("path", path)
        self._column = check_place("column", column)
        self._root = optional(check_place, "root", root)
        self._split = optional(check_place, "split_column", split_column)
        self._ignored: Counter[str] = Counter()
        pyarrow()  # the error comes before the work

    @property
    def ignored(self) -> Mapping[str, int]:
        return self._ignored

    def images(self) -> Iterator[ImageRef]:
        """Raises SourceError, naming file and row."""
        self._ignored = Counter()
        for file in self._files():
            for number, row in enumerate(self._rows(file)):
                yield self._ref(row, f"{posixpath.basename(file)} row {number}", f"{file!r} row {number}")

    def _ref(self, row: dict[str, Any], called: str, where: str) -> ImageRef:
        """`called`: where it names no picture."""
        name, split = row.pop(self._column), None
        if self._split is not None and self._split != self._column:
            split = row.pop(self._split, None)
        try:
            extra = extra_text({key: _json(value) for key, value in row.items()})
        except BadShape as e:
            raise SourceError(f"{where}: {e}") from e
        split = None if split is None else str(split)
        if not isinstance(name, str) or not name.strip():
            problem = Problem("missing", f"{where}: no path in the column {self._column!r}")
            return ImageRef(called, posixpath.join(self._base, called), None, split, problem, extra=extra)
        image_id, path = placed(name, self._base, where)
        return ImageRef(image_id, path, split=split, extra=extra)

    @property
    def _base(self) -> str:
        if self._root is not None:
            return absolute(self._root)
        path = absolute(self._path)
        return parent(path) if extension(path) == ".parquet" else path

    def _files(self) -> Iterator[str]:
        path = absolute(self._path)
        if not is_folder(path):
            if not exists(path):
                raise SourceError(f"no such file or folder: {self._path!r}")
            yield path
            return
        found = [file for file in files_below(path, Counter()) if extension(file.name) == ".parquet"]
        if not found:
            raise SourceError(f"no .parquet file in {self._path!r}")
        yield from (posixpath.join(path, file.name) for file in found)

    def _rows(self, file: str) -> Iterator[dict[str, Any]]:
        pa = pyarrow()
        with _parquet_file(file) as table:
            schema = table.schema_arrow
            if self._column not in schema.names:
                raise SourceError(
                    f"{file!r} has no column {self._column!r} (source.column), only {schema.names[:8]}"
                )
            for name in (field.name for field in schema if _holds_bytes(field.type)):
                self._ignored[f"column {name} (bytes)"] = 1
            columns = [field.name for field in schema if not _holds_bytes(field.type)]
            for batch in table.iter_batches(batch_size=_BATCH, columns=columns):
                yield from _as_text(pa, batch).to_pylist()


@contextmanager
def _parquet_file(file: str) -> Iterator[Any]:
    pa = pyarrow()
    try:
        with (
            opened(file) if is_url(file) else open(file, "rb") as stream,  # noqa: PTH123
            pa.parquet.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table,
        ):
            yield table
    except (pa.ArrowException, OSError, ValueError) as e:  # ValueError: nanoseconds inside a struct
        raise SourceError(f"{file!r} is not Parquet, or damaged: {' '.join(str(e).split())}") from e


def _holds_bytes(kind: Any) -> bool:
    """Also inside a list or a struct."""
    types = pyarrow().types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))


def _as_text(pa: Any, batch: Any) -> Any:
    """Times as text: Python's own hold no nanoseconds."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_timestamp(field.type) or pa.types.is_time(field.type) or pa.types.is_date(field.type):
            text = column.cast(pa.string())
            column = pa.compute.replace_substring(text, " ", "T", max_replacements=1)
        elif pa.types.is_duration(field.type):
            column = column.cast(pa.int64())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    if isinstance(value, date | clock):  # inside a list or a struct; a datetime is a date
        return value.isoformat()
    return str(value)
