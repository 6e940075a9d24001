"""Classes and the phrases that stand for them, for models that are asked in words. No model.

Letters in shapes: N boxes or masks, P phrases, C classes.
"""

from __future__ import annotations

# ruff: noqa: N803  (shape suffixes)
from dataclasses import dataclass

import numpy as np

from autolabel.core.errors import SettingError
from autolabel.core.types import Category, Float32


@dataclass(frozen=True, slots=True)
class Ontology:
    """`phrases[i]` stands for the class `classes[class_of_phrase[i]]`. Category ids start at 1, in the order given."""

    classes: tuple[str, ...]
    phrases: tuple[str, ...]
    class_of_phrase: tuple[int, ...]

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(Category(number, name) for number, name in enumerate(self.classes, start=1))

    def of_classes(self, scores_NP: np.ndarray) -> Float32:
        """Scores of phrases (N, P) as scores of classes (N, C): a class is as likely as its likeliest phrase."""
        best = [scores_NP[:, np.array(self.class_of_phrase) == c].max(axis=1) for c in range(len(self.classes))]
        return np.stack(best, axis=1).astype(np.float32)


_EXAMPLE = "'{forklift: yellow forklift, person: [person, worker]}'"


def read_ontology(ontology: object, *, key: str = "ontology", forbidden: str = "") -> Ontology:
    """From `{forklift: yellow forklift, person: [person, worker]}`; null stands for the class's own name.

    `forbidden` are characters that no phrase may hold, `key` is the setting that errors name. Raises ConfigError.
    """
    if not isinstance(ontology, dict) or not ontology:
        raise SettingError(f"{key}: which objects? for example {_EXAMPLE}; got {ontology!r}")
    phrases: dict[str, str] = {}
    for name, given in ontology.items():
        some = [name] if given is None else given if isinstance(given, list) else [given]
        if not isinstance(name, str) or not some or not all(isinstance(p, str) and p.strip() for p in some):
            raise SettingError(f"{key}: {name!r} must stand for a phrase or a list of phrases, as in {_EXAMPLE}")
        for phrase in (" ".join(p.split()).lower() for p in some):
            if phrases.setdefault(phrase, name) != name:
                raise SettingError(f"{key}: {phrase!r} stands for {phrases[phrase]!r} and for {name!r}")
            bad = sorted(set(phrase) & set(forbidden))
            if bad:
                raise SettingError(f"{key}: this model cannot read {bad[0]!r} in {phrase!r}")
    names = tuple(ontology)
    return Ontology(names, tuple(phrases), tuple(names.index(name) for name in phrases.values()))
