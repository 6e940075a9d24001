"""The command lines that have no configuration: `doctor`, `weights`."""

from __future__ import annotations

import argparse
from typing import NoReturn

from autolabel.core.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Usage errors become ours: exit code 2 means something else in this program."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} ({self.prog} --help)")
