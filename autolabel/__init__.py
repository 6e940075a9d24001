"""autolabel: pictures in, pixel-accurate training labels out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AutoLabeler", "__version__"]

if TYPE_CHECKING:
    from autolabel.app.api import AutoLabeler


def __getattr__(name: str) -> Any:
    # Importing autolabel must stay light; the pipeline brings torch with it.
    if name == "AutoLabeler":
        from autolabel.app.api import AutoLabeler

        return AutoLabeler
    raise AttributeError(f"module 'autolabel' has no attribute {name!r}")
