"""The door to pyarrow, which is optional: a clear error where it is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from autolabel.core.errors import MissingExtra


def pyarrow() -> Any:
    """The package, with its `parquet` module. Raises MissingExtra naming the extra."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'autolabel[parquet]'") from error
