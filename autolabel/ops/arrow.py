"""The door to pyarrow, which is optional: a clear error where it is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from autolabel.core.errors import MissingExtra


def pyarrow() -> Any:
    """The package, with its modules `parquet` and `compute`. Raises MissingExtra naming the extra."""
    try:
        for name in ("pyarrow.parquet", "pyarrow.compute"):
            import_module(name)
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'autolabel-sam2[parquet]'") from error
