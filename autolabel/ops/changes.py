"""What differs between settings, as a person would tell it. Pure; knows neither files nor runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

NOT_SET = "(not set)"
_TARGET = "._target_"


def changed(
    settings: Sequence[Mapping[str, str]], choices: Sequence[Mapping[str, str]] = ()
) -> list[tuple[str, list[str]]]:
    """A key and its values, one of each of the `settings` (dotted keys, values as text), for all that differs.

    Of a component that is another one, or that not all have, the class says enough: its own settings are left out.
    `choices` name what each has chosen of a group (`segment`: `nano`), where that is known. Those that differ come
    first, and stand for the components of the group and for what it says of itself: `segment (weights sha256)`."""
    chosen = [(group, names) for group, names in _rows(choices) if NOT_SET not in names]
    named = {group for group, _ in chosen}
    rows = _rows(settings)
    others = _outermost(key.removesuffix(_TARGET) for key, _ in rows if key.endswith(_TARGET))
    found: dict[str, list[str]] = {}
    for key, values in rows:
        group = key.partition(".")[0].partition(" (")[0]
        component = next((one for one in others if key == one or key.startswith(f"{one}.")), None)
        if group in named and (component is not None or key == group or " (" in key):
            continue
        if component is None:
            found[key] = values
        else:
            found[component] = [_class(one.get(f"{component}{_TARGET}", NOT_SET)) for one in settings]
    return [*chosen, *found.items()]


def _rows(settings: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """The rows of what not all have, or have alike, in the order that it is there."""
    keys = dict.fromkeys(key for one in settings for key in one)
    rows = [(key, [one.get(key, NOT_SET) for one in settings]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _outermost(components: Iterable[str]) -> list[str]:
    """Those that are not part of another one of them."""
    found: list[str] = []
    for one in sorted(components, key=len):
        if not any(one.startswith(f"{outer}.") for outer in found):
            found.append(one)
    return found


def _class(target: str) -> str:
    """`Sam2Segmenter` of `'autolabel.segment.sam2.Sam2Segmenter'`."""
    return target.strip("'\"").rpartition(".")[2]
