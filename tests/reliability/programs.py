"""What the processes of the tests do: label, refine and export as the command line does, with models that are fakes."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from autolabel.app import label as label_module
from autolabel.app.command_line import parse
from autolabel.app.main import main
from autolabel.core.types import ImageInfo, ImageRecord, ImageRef, Instance, Rle, Verdict
from autolabel.store.manifest import entries
from autolabel.store.run import open_store
from tests.fakes import album

SETTINGS = ("detect=mates", "segment=box", "unit_size=4", "batch_size=2", "export=[coco]", "decode.isolated=false")
_composed: dict[tuple[object, ...], DictConfig] = {}
_compose = label_module.compose


def configs(folder: Path) -> str:
    """A configuration folder with the fake detectors."""
    nodes = {
        "mates": {"_target_": "tests.reliability.models.MatesDetector", "delay_s": 0.0},
        "acting": {"_target_": "tests.reliability.models.ActingDetector", "orders": "none"},
    }
    (folder / "detect").mkdir(parents=True, exist_ok=True)
    for name, node in nodes.items():
        OmegaConf.save(OmegaConf.create(node), folder / "detect" / f"{name}.yaml")
    return str(folder)


def command(*arguments: str) -> int:
    """The program `autolabel`."""
    return main(arguments)


def prepare(arguments: Sequence[str]) -> None:
    """Compose the settings of a `label` before the fork: that is half a second, and not what is killed here."""
    label_module.compose = remembered
    if arguments[:1] == ["label"]:
        request = parse(arguments[1:], arguments[0])
        remembered("label", request.overrides, request.config_dir)


def remembered(name: str, overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """As `compose`; settings that differ in the run directory alone are composed once."""
    rest = tuple(o for o in overrides if not o.startswith("run="))
    key = (name, rest, config_dir)
    if key not in _composed:
        _composed[key] = _compose(name, rest, config_dir)
    config = copy.deepcopy(_composed[key])
    for override in overrides:
        if override.startswith("run="):
            config.run = override.removeprefix("run=")
    return config


def warm_up() -> None:
    """Load and compile all that a run needs, so that a fork starts at once."""
    import cv2
    from tqdm import tqdm

    import autolabel.engine.threaded  # noqa: F401 - a child that is somebody else may not read the package

    cv2.setNumThreads(0)
    tqdm.monitor_interval = 0  # its watching thread would stay
    # Its own lock is a semaphore that all forks share: a child killed with it in hand would stop the others for ever.
    tqdm.set_lock(threading.RLock())
    with (
        tempfile.TemporaryDirectory() as name,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        folder = Path(name)
        album(folder / "in", 6)
        settings = (*SETTINGS, "--config-dir", configs(folder / "configs"), f"run={folder / 'run'}")
        assert main(["label", str(folder / "in"), *settings, "engine=inline"]) == 0
        assert main(["refine", str(folder / "run"), "refine=strict"]) == 0


def commit(directory: str, pictures: str) -> int:
    """Commit every unit that is not there yet and say so after each: what was said may never be lost."""
    from autolabel.store import run as store_module

    store_module.CHECKPOINT_EVERY = 3  # so that checkpoints are among the calls that fail
    refs = {p.name: ImageRef(p.name, str(p)) for p in sorted(Path(pictures).iterdir())}
    with open_store(Path(directory)) as store:
        store.claim({"settings": "one"})
        store.sync(entries(refs.values()), root=pictures, unit_size=2)
        for unit in store.pending(refs):
            store.commit(unit, [record(ref) for ref in unit.refs])
            os.write(1, f"unit {unit.number}\n".encode())
    return 0


def record(ref: ImageRef) -> ImageRecord:
    """Some content that is a function of the picture alone."""
    size = len(ref.image_id) % 7 + 2
    found = Instance(0, 1, (0.0, 0.0, float(size), 1.0), 0.5, Rle((4, 9), b"04" * size), 0.75)
    return ImageRecord(ref.image_id, ref.path, "ok", ImageInfo(9, 4), candidates=(found,), verdicts=(Verdict(),))


def at_another_time(offset_s: float, *arguments: str) -> int:
    """The program on a machine whose clock is off."""
    true = time.time
    time.time = lambda: true() + offset_s
    return main(arguments)


def without_room(bytes_: int, *arguments: str) -> int:
    """The program where no file can become larger than this: writes fail in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    return main(arguments)


def with_its_peak(file: str, *arguments: str) -> int:
    """The program; its highest resident memory goes to the file, in KiB."""
    code = main(arguments)
    Path(file).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    return code
