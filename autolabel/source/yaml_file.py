"""YAML of a stranger and the class names in it: read safely, in time, and refused in one line."""

from __future__ import annotations

import datetime
from typing import Any

import yaml  # type: ignore[import-untyped]

from autolabel.core.errors import SourceError

_LONGEST_NAME = 500
_SCALAR = (str, int, float, datetime.date, type(None))


class _Loader(yaml.SafeLoader):
    """Merge keys (`<<`) copy what they name, again and again; label files have no use for them."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys (<<) are not read")


def parse_yaml(path: str, text: str) -> Any:
    """Raises SourceError, naming the file."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError as e:
        raise SourceError(f"{path!r} is not YAML that can be read: nested too deep") from e
    # Values that do not fit their tag (`!!int x`, a 13th month) raise whatever their conversion does.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as e:
        raise SourceError(f"{path!r} is not YAML: {' '.join(str(e).split())[:500]}") from e


def class_name(path: str, number: object, value: object) -> str:
    """A class's name as text. Raises SourceError, naming the file, for what is not a name: a list can be short in the
    file and endless as text."""
    try:
        name = str(value) if isinstance(value, _SCALAR) else None
    except ValueError:  # a number of too many digits
        name = None
    if name is None or len(name) > _LONGEST_NAME:
        what = f"a {type(value).__name__}" if name is None else f"{len(name)} characters"
        raise SourceError(
            f"{path!r}: the name of class {str(number)[:40]} must be text of at most {_LONGEST_NAME} characters, "
            f"got {what}"
        )
    return name
