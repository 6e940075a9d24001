"""Where the configuration tree is on this machine, and whose turn it is to read it. Reads no configuration itself."""

from __future__ import annotations

import threading
from pathlib import Path

from autolabel.core.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent

HYDRA_TURN = threading.RLock()
"""Held by whoever changes Hydra's state, of which a process has one: to compose, and to import sam2."""


def configs_dir() -> Path:
    """The `configs` folder: inside the package when installed, beside it in a checkout."""
    # The packaged copy goes first: beside an installed package, `configs` may be anybody's.
    for candidate in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (candidate / "__init__.py").is_file():
            return candidate
    raise ConfigError(f"no configs folder in {_PACKAGE} or beside it; install autolabel again")
