"""What must hold between prompts and the pictures of a run, before any of them is labelled."""

from __future__ import annotations

import logging
from collections.abc import Collection

from autolabel.core.errors import ConfigError
from autolabel.core.protocols import Prompter

logger = logging.getLogger(__name__)

_SHOWN = 5


def check_prompts(prompter: Prompter, image_ids: Collection[str]) -> None:
    """Says how many pictures a prompter's file names (`image_ids`) that the source does not have. Raises ConfigError
    when none of them is there."""
    named: frozenset[str] = getattr(prompter, "image_ids", frozenset())
    if not named:  # else all pictures would be gone through for nothing
        return
    unknown = sorted(named.difference(image_ids))
    if not unknown:
        return
    shown = ", ".join(repr(name) for name in unknown[:_SHOWN]) + (" and more" if len(unknown) > _SHOWN else "")
    if len(unknown) == len(named):
        raise ConfigError(
            f"none of the {len(named)} pictures that prompt.file names is in the source ({shown}); it must name "
            f"them as the source does, for example {min(image_ids, default='')!r}"
        )
    logger.warning("prompt.file names %d pictures that are not in the source: %s", len(unknown), shown)
