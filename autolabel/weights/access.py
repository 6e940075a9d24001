"""What is allowed about weights, and where they lie: four environment variables, read at each call.

    AUTOLABEL_CACHE           the cache directory; else XDG_CACHE_HOME/autolabel, else ~/.cache/autolabel
    AUTOLABEL_OFFLINE         1: never touch the network
    AUTOLABEL_REQUIRE_PINNED  1: use only files whose sha256 the registry, the package or the caller states
    AUTOLABEL_TRUST_FIRST     1: where no sha256 is published, accept the first file and pin it from then on

The application sets them from its configuration, so that a constructor only has to name its weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autolabel.core.errors import ConfigError
from autolabel.ops.settings import environment_flag


@dataclass(frozen=True, slots=True)
class Access:
    """`cache` is the cache directory; weights lie in `cache/weights`."""

    cache: Path
    offline: bool = False
    require_pinned: bool = False
    trust_first: bool = False

    @property
    def weights(self) -> Path:
        return self.cache / "weights"


def from_environment(environment: Mapping[str, str] | None = None) -> Access:
    """What the environment allows. Raises ConfigError naming the variable."""
    known = os.environ if environment is None else environment
    return Access(
        cache=_cache(known),
        offline=environment_flag("AUTOLABEL_OFFLINE", known),
        require_pinned=environment_flag("AUTOLABEL_REQUIRE_PINNED", known),
        trust_first=environment_flag("AUTOLABEL_TRUST_FIRST", known),
    )


def _cache(environment: Mapping[str, str]) -> Path:
    if own := environment.get("AUTOLABEL_CACHE"):
        return Path(own).expanduser().absolute()
    xdg = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification tells programs to ignore a relative path.
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "autolabel"
    try:
        return Path.home() / ".cache" / "autolabel"
    except RuntimeError:
        raise ConfigError("there is no home directory; set AUTOLABEL_CACHE to a folder for weights") from None
