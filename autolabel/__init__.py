"""autolabel: pictures in, pixel-accurate training labels out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AutoLabeler", "Result", "__version__", "save"]

if TYPE_CHECKING:
    from autolabel.app.api import AutoLabeler, Result, save


def __getattr__(name: str) -> Any:
    # Importing autolabel must stay light; the pipeline brings torch with it.
    if name in ("AutoLabeler", "Result", "save"):
        from autolabel.app import api

        return getattr(api, name)
    raise AttributeError(f"module 'autolabel' has no attribute {name!r}")
