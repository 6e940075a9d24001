"""Photographs of a wanted size and number with boxes of what is in them: the same on every machine, without a network.

They are crops of the sample photographs that `autolabel demo` labels, some mirrored, enlarged or made smaller, all
different; or of a folder of somebody's own. Boxes are those of objects: of the samples by hand, down to shoes and
wheels; of other pictures those that the shipped detector proposes. Where more are asked for than there are, they are
asked for again with their sides moved, as a detector that misses would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from autolabel.app.build import build
from autolabel.app.compose import compose
from autolabel.app.demo import sample_folder
from autolabel.core.types import Float32, Frame, ImageInfo, ImageRef, UInt8

SIZES_HW = {"640x480": (480, 640), "1080p": (1080, 1920), "4000x3000": (3000, 4000)}
SUFFIXES = (".jpg", ".jpeg", ".png")
OBJECTS = {
    "bus.jpg": [
        (22, 232, 802, 735), (52, 400, 245, 902), (223, 406, 345, 860), (670, 400, 810, 880), (0, 552, 78, 872),
        (426, 660, 460, 762), (658, 625, 690, 716), (119, 700, 158, 822), (690, 570, 765, 672), (60, 448, 202, 700),
        (125, 35, 212, 205), (330, 75, 400, 250), (0, 254, 32, 322), (670, 822, 742, 880), (176, 852, 246, 898),
        (256, 822, 292, 860), (385, 530, 500, 668), (590, 395, 642, 487), (428, 150, 530, 190), (104, 400, 160, 475),
    ],
    "zidane.jpg": [
        (125, 202, 1152, 720), (750, 42, 1137, 720), (440, 437, 500, 720), (480, 202, 665, 455), (892, 42, 1072, 295),
        (952, 405, 1153, 492), (505, 297, 545, 357), (920, 435, 970, 513), (1065, 515, 1137, 702),
        (603, 582, 633, 616), (345, 405, 595, 720), (592, 395, 622, 435),
    ],
}  # fmt: skip
"""In the samples, xyxy in their pixels: people, heads, clothes, wheels, a sign, posts, a tie, a hand."""
TRIES = 8
LEAST_SEEN = 0.4
"""Of an object's area that a crop must show for it to be asked for."""
LEAST_SIDE_PX = 4
MISS = 0.12
"""How far a side is moved at the most, of the box's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Photograph:
    """RGB, and the boxes of its objects (N, 4), xyxy in its pixels."""

    image: Image.Image
    boxes_xyxy: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A file, and the boxes (N, 4) to ask of it, xyxy in its pixels."""

    path: Path
    boxes_xyxy: Float32


def written(
    folder: Path, size_hw: tuple[int, int], boxes: int, images: int, photographs: Sequence[Photograph]
) -> list[Picture]:
    """`images` JPEGs of quality 90 in `folder`, with `boxes` boxes each; picture number i is the same whatever their
    number is."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> Picture:
        image, objects = view(photographs[number % len(photographs)], size_hw, number)
        path = folder / f"{number:06d}.jpg"
        image.save(path, quality=90)
        return Picture(path, asked(objects, boxes, size_hw, number))

    with ThreadPoolExecutor() as pool:  # pixels are computed without the interpreter's lock
        return list(pool.map(write, range(images)))


def read_bgr(path: str | Path) -> UInt8:
    """As OpenCV reads it, for what is compared with others who read it so. Ends with one line where it cannot."""
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path}: not there, or not a picture")
    return image


def samples() -> list[Photograph]:
    """Raises SourceError where the ultralytics package does not carry them."""
    return [
        Photograph(Image.open(sample_folder() / name).convert("RGB"), np.array(boxes, np.float32))
        for name, boxes in OBJECTS.items()
    ]


def photographs_in(folder: Path) -> list[Photograph]:
    """The pictures of a folder with what the shipped detector proposes; where it finds nothing, the middle. Raises
    ValueError where there is none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} has no picture ({', '.join(SUFFIXES)})")
    settings = ["detect=nano", "detect.conf=0.1", "detect.device=cpu", "source.path=x"]
    detector = build(compose("label", settings).detect)
    found = []
    for path in paths:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        frame = Frame(ImageRef(path.name, str(path)), np.array(image), ImageInfo(image.width, image.height))
        (detections,) = detector.detect([frame])
        found.append(
            Photograph(image, detections.boxes_xyxy if len(detections) else middle(image.height, image.width))
        )
    return found


def middle(height: int, width: int) -> Float32:
    return np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]], np.float32)


def view(photograph: Photograph, size_hw: tuple[int, int], number: int) -> tuple[Image.Image, Float32]:
    """A part of the photograph as a picture of that size, and the objects in it; `number` says which part, and
    whether it is mirrored."""
    random = np.random.default_rng([number, *size_hw])
    windows = [window(photograph.image.size, size_hw, random) for _ in range(TRIES)]
    seen = [seen_in(photograph.boxes_xyxy, one, size_hw) for one in windows]
    best = max(range(TRIES), key=lambda i: len(seen[i]))
    height, width = size_hw
    image = photograph.image.resize((width, height), Image.Resampling.BICUBIC, box=windows[best])
    boxes = seen[best] if len(seen[best]) else middle(height, width)
    if random.integers(2):
        image, boxes = ImageOps.mirror(image), boxes.copy()
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return image, boxes


def window(
    size_wh: tuple[int, int], size_hw: tuple[int, int], random: np.random.Generator
) -> tuple[float, float, float, float]:
    """A part of the photograph with the picture's proportions, six tenths to all of what fits; xyxy."""
    height, width = size_hw
    w = min(size_wh[0], size_wh[1] * width / height) * random.uniform(0.6, 1)
    h = w * height / width
    x, y = random.uniform(0, max(size_wh[0] - w, 0)), random.uniform(0, max(size_wh[1] - h, 0))
    return x, y, min(x + w, size_wh[0]), min(y + h, size_wh[1])


def seen_in(boxes_xyxy: Float32, part: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Float32:
    """The boxes of which enough is in the window, in pixels of the picture."""
    x0, y0, x1, y1 = part
    cut = np.clip(boxes_xyxy, [x0, y0, x0, y0], [x1, y1, x1, y1])
    share = np.prod(cut[:, 2:] - cut[:, :2], axis=1) / np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    height, width = size_hw
    scale = np.array([width / (x1 - x0), height / (y1 - y0)] * 2)
    moved = ((cut - [x0, y0, x0, y0]) * scale).astype(np.float32)
    large = ((moved[:, 2:] - moved[:, :2]) >= LEAST_SIDE_PX).all(axis=1)
    return moved[(share >= LEAST_SEEN) & large]


def asked(boxes_xyxy: Float32, count: int, size_hw: tuple[int, int], number: int) -> Float32:
    """`count` boxes: the objects in a seeded order, and then again with their sides moved, within the picture."""
    random = np.random.default_rng([number, *size_hw])
    rows = random.permutation(len(boxes_xyxy))
    found = [box for _, box in zip(range(count), _again(boxes_xyxy[rows], random), strict=False)]
    height, width = size_hw
    return np.clip(np.array(found, np.float32).reshape(-1, 4), 0, [width, height, width, height]).astype(
        np.float32
    )


def _again(boxes_xyxy: Float32, random: np.random.Generator) -> Iterator[Float32]:
    yield from boxes_xyxy
    while True:
        for box in boxes_xyxy:
            side = np.tile(box[2:] - box[:2], 2)
            yield box + (random.uniform(-MISS, MISS, 4) * side).astype(np.float32)
