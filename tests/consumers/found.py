"""What a tool made of an export, in one file: written by the tool's interpreter, read by the tests'. numpy alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Image:
    """`objects` are (label, mask (H, W) of bool) in the tool's order; `picture_rgb` is what the tool shows."""

    picture_rgb: np.ndarray
    objects: list[tuple[str, np.ndarray]] = field(default_factory=list)


def write_found(path: str | Path, images: dict[str, Image], version: str) -> None:
    arrays, rows = {}, {}
    for number, (name, image) in enumerate(images.items()):
        arrays[f"picture{number}"] = np.asarray(image.picture_rgb, np.uint8)
        arrays |= {f"mask{number}_{n}": np.asarray(mask) != 0 for n, (_, mask) in enumerate(image.objects)}
        rows[name] = [label for label, _ in image.objects]
    text = json.dumps({"version": version, "images": rows})
    np.savez_compressed(path, text=np.array(text), **arrays)


def read_found(path: Path) -> tuple[dict[str, Image], str]:
    """The images by name, and the tool's version."""
    with np.load(path) as file:
        top = json.loads(str(file["text"]))
        images = {
            name: Image(file[f"picture{i}"], [(label, file[f"mask{i}_{n}"]) for n, label in enumerate(labels)])
            for i, (name, labels) in enumerate(top["images"].items())
        }
    return images, top["version"]
