"""Names to verified local files."""

from __future__ import annotations

from autolabel.weights.obtain import ResolvedWeights, progress_to, resolve

__all__ = ["ResolvedWeights", "progress_to", "resolve"]
