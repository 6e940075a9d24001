"""Which weights there are: names, official addresses, sizes and sha256. Knows no disk and no network.

A hash is here because somebody published it, never because we computed it from what we happened to
download: a digest of the bytes one already has says nothing about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

_SAM = "https://dl.fbaipublicfiles.com/segment_anything_2"
_ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download/v8.4.0"

_RELEASE = "digest of the release asset; public projects that pin it agree"
_INDEPENDENT = "no digest by Meta; public projects that pin the official file agree"
_UNKNOWN = "no published digest found"


@dataclass(frozen=True, slots=True)
class Published:
    """Weights that their makers publish. `bytes` and `sha256` are None where nothing was found.

    `confirmed` says that independent public records of the hash agree; `note` says which kind of record.
    `configs` are the settings that use the file.
    """

    name: str
    url: str
    bytes: int | None
    sha256: str | None
    licence: str
    page: str
    configs: tuple[str, ...]
    confirmed: bool
    note: str

    @property
    def file(self) -> str:
        """The file's name, in the release and in the cache."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True, slots=True)
class Shipped:
    """Weights inside the package. The sha256 is in the JSON file beside them, under `sha256`."""

    name: str
    path: Path
    licence: str
    configs: tuple[str, ...]

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def card(self) -> Path:
        """The JSON file that describes and pins the weights."""
        return self.path.with_suffix(".json")


def _sam(name: str, date: str, config: str, size: int, sha256: str) -> Published:
    page = "https://github.com/facebookresearch/sam2#download-checkpoints"
    url = f"{_SAM}/{date}/{name}.pt"
    return Published(name, url, size, sha256, "Apache-2.0", page, (f"segment={config}",), True, _INDEPENDENT)


def _yolo(name: str, size: int | None, sha256: str | None) -> Published:
    page = "https://github.com/ultralytics/assets/releases/tag/v8.4.0"
    note = _UNKNOWN if sha256 is None else _RELEASE
    url, configs = f"{_ULTRALYTICS}/{name}.pt", (f"detect={name.replace('-', '_')}",)
    return Published(name, url, size, sha256, "AGPL-3.0", page, configs, sha256 is not None, note)


def _nano(name: str, file: str, config: str) -> Shipped:
    return Shipped(name, Path(__file__).parent / "nano" / file, "Apache-2.0", (config,))


SHIPPED: tuple[Shipped, ...] = (
    _nano("nano_detector", "detector.safetensors", "detect=nano"),
    _nano("nano_segmenter", "segmenter.safetensors", "segment=nano"),
)

# fmt: off
PUBLISHED: tuple[Published, ...] = (
    _sam("sam2.1_hiera_tiny", "092824", "sam2_tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam("sam2.1_hiera_small", "092824", "sam2_small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam("sam2.1_hiera_base_plus", "092824", "sam2_base_plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam("sam2.1_hiera_large", "092824", "sam2_large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _sam("sam2_hiera_tiny", "072824", "sam2_0_tiny", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    _sam("sam2_hiera_small", "072824", "sam2_0_small", 184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    _sam("sam2_hiera_base_plus", "072824", "sam2_0_base_plus", 323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    _sam("sam2_hiera_large", "072824", "sam2_0_large", 897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
    _yolo("yolo26n", 5_544_453, "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"),
    _yolo("yolo26s", 20_422_725, "646f8bc3fe0a656803d95c294f7852321748cb29d13466a1af8862e2db384a1b"),
    _yolo("yolo26m", 44_255_705, "401cea9ab23ad19246ff7744859816bc599f350e93c9dd30367b6f0a0745d0b7"),
    _yolo("yolo26l", 53_211_173, "9fe3c544f2b19bebad7ea41e76d7ad3d88b7c2f10d11d24430c5311f6b32db26"),
    _yolo("yolo26x", 118_667_365, "9fdd44a31c504547ffb81d2c6d9e6dac3493c8eaa8b0398d3f43bae6c7003e92"),
    _yolo("yolo11n", 5_613_764, "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1"),
    _yolo("yolo11s", 19_313_732, "85a76fe86dd8afe384648546b56a7a78580c7cb7b404fc595f97969322d502d5"),
    _yolo("yolo11m", 40_684_120, "d5ffc1a674953a08e11a8d21e022781b1b23a19b730afc309290bd9fb5305b95"),
    _yolo("yolo11l", 51_387_343, "9ebd0e09d59811db4b1d61e2bc6730649608b1ac47f8dd01e2da6bca7c20023f"),
    _yolo("yolo11x", 114_636_239, "7bc158aa95c0ebfdd87f70f01653c1131b93e92522dbe15c228bcd742e773a24"),
    _yolo("yolov8n", 6_549_796, "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36"),
    _yolo("yolov8s", 22_588_772, "1f47a78bf100391c2a140b7ac73a1caae18c32779be7d310658112f7ac9aa78a"),
    _yolo("yolov8m", 52_136_884, "5d4a90cdc7a21786cc59cd19778e9eafff836df9e2da32524737c7ee6efe4fe5"),
    _yolo("yolov8l", 87_792_836, "64c9115303f6a25575f82200d1b22ec409fa6bd7d08d0313884fc20d919478cd"),
    _yolo("yolov8x", 136_890_692, "3df4ada6b4dad6d657868f2fdf7faecfb34dcfccf3a25c4b82079064718524c8"),
    _yolo("rtdetr-l", 66_511_432, "6de60b10d4bc566f00cda0f5b4d64afe4b66d48dc9695d2171effb7859d8e73f"),
    _yolo("rtdetr-x", None, None),
)
# fmt: on

ENTRIES: tuple[Published | Shipped, ...] = (*SHIPPED, *PUBLISHED)
_BY_NAME = {key: entry for entry in ENTRIES for key in (entry.name, f"{entry.name}.pt")}


def find(name: str) -> Published | Shipped | None:
    """The entry of that name, with or without `.pt`; None when there is none."""
    return _BY_NAME.get(name)


def similar(name: str) -> list[str]:
    """Up to three known names that look like `name`, best first."""
    stem = name.removesuffix(".pt").lower()
    return get_close_matches(stem, [e.name for e in ENTRIES], n=3, cutoff=0.6)
