"""Damaged files for every reader: `python -m tests.reliability.fuzz --mutations 10000`.

Good files come from our own exporters; each mutation changes some of their bytes, and reads. Whatever happens must be
an answer or one of the errors on the closed list. Pictures are decoded by other processes, so that a crash is seen.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from autolabel.app.compose import compose, plain
from autolabel.app.main import main as autolabel
from autolabel.core.errors import AutolabelError, ImageError
from autolabel.core.types import ImageRef
from autolabel.export.verify import check_files
from autolabel.ops.isolation import POOL
from autolabel.source.infer import AutoSource
from autolabel.store.run import open_reader
from tests.fakes import album
from tests.reliability.corpus import encoded
from tests.reliability.programs import SETTINGS, configs

ALLOWED = (AutolabelError,)
"""The closed list. ImageError is one of them; `decoder_crash` and `decoder_hang` among its codes are not allowed."""
SLOW_S = 20.0
"""Processor time that no file this small may take."""
FORMATS = {
    "coco": "*.json", "yolo": "*.txt data.yaml", "voc": "*.xml", "labelme": "*.json", "cvat": "*.xml",
    "label_studio": "*.json", "parquet": "*.parquet", "semantic_png": "*.png classes.json *.yaml",
}  # fmt: skip
TOKENS = (
    b"NaN", b"Infinity", b"-1", b"1e999", b"99999999999999999999", b"0", b"null", b"true", b'""', b"[]", b"{}",
    b"../../../../etc/passwd", b"/etc/passwd", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 5000, b"{" * 2000,
    b"<a>" * 2000, b'<!DOCTYPE x [<!ENTITY a "b">]>', b"&a;", b"*a", b"&a [*a,*a]", b"!!python/object/apply:os.system",
    b"file:///etc/passwd", b"http://127.0.0.1/x", b"\n", b" ", b'"', b"'", b"<", b">", b",", b":", b"9" * 5000,
)  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One to four changes: bits, bytes, blocks, tokens, and cuts."""
    hurt = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(hurt) + 1)
        match dice.randrange(7):
            case 0 if hurt:
                hurt[min(at, len(hurt) - 1)] ^= 1 << dice.randrange(8)
            case 1 if hurt:
                hurt[min(at, len(hurt) - 1)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            case 2:
                del hurt[at : at + dice.choice((1, 2, 4, 16, 256))]
            case 3:
                hurt[at:at] = dice.choice(TOKENS)
            case 4:
                token = dice.choice(TOKENS)
                hurt[at : at + len(token)] = token
            case 5:
                hurt[at:at] = hurt[dice.randrange(len(hurt) + 1) :][: dice.choice((1, 8, 64))]
            case _ if dice.random() < 0.3:
                del hurt[at:]
    return bytes(hurt)


@dataclass(frozen=True)
class Reader:
    """`files` are good ones below `folder`, one of which is damaged at a time; `read` then reads it all."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    read: Callable[[Path], object]


@dataclass
class Findings:
    """What came of the mutations: `bad` holds a line and a traceback for each that must not be."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)


def readers(folder: Path) -> Iterator[Reader]:
    """One for each kind of file that comes from outside."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for name, data in encoded().items():
        (pictures / f"a.{name}").write_bytes(data)
    for path in sorted(pictures.iterdir()):
        yield Reader(
            f"image {path.suffix}", pictures, (path,), lambda where, name=path.name: _picture(where / name)
        )
    run = _run(folder)
    for name, patterns in FORMATS.items():
        found = run / "export" / name
        if found.is_dir():
            files = {p for pattern in patterns.split() for p in found.rglob(pattern) if p.name != "manifest.json"}
            yield Reader(f"source {name}", found, tuple(sorted(files)), _source)
    (folder / "list").mkdir()
    (folder / "list" / "list.txt").write_text("\n".join(str(p) for p in sorted((folder / "in").rglob("*.png"))))
    yield Reader(
        "source list", folder / "list", (folder / "list" / "list.txt",), lambda f: _source(f / "list.txt")
    )
    coco = run / "export" / "coco"
    yield Reader("export manifest", coco, (coco / "manifest.json",), check_files)
    yield Reader("run database", run, (run / "run.sqlite",), _run_database)
    own = Path(configs(folder / "configs"))
    yield Reader("configuration", own, (own / "detect" / "mates.yaml",), _configuration)


def _run(folder: Path) -> Path:
    album(folder / "in", 5)
    formats = f"export=[{','.join(FORMATS)}]"
    settings = (*SETTINGS, formats, "--config-dir", configs(folder / "configs"), f"run={folder / 'run'}")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert autolabel(["label", str(folder / "in"), *settings]) == 0
    return folder / "run"


class ProcessDied(Exception):
    """A decoder crashed or hung: isolated, but never all right."""


def _picture(path: Path) -> None:
    try:
        POOL.load_frame(ImageRef("x", str(path)), max_pixels=10_000_000, min_side=1, timeout_s=30)
    except ImageError as error:
        if error.code in ("decoder_crash", "decoder_hang"):
            raise ProcessDied(str(error)) from error
        raise


def _source(path: Path) -> None:
    json = sorted(path.glob("*.json")) if path.is_dir() else []
    where = json[0] if len(json) == 1 else path
    source = AutoSource(path=str(where), images_dir=None)
    for ref in source.images():
        assert ".." not in ref.image_id.split("/"), ref.image_id
    source.categories  # noqa: B018 - reading it may raise


def _run_database(folder: Path) -> None:
    with open_reader(folder) as reader:
        list(reader.records())
        reader.counts()
        reader.categories  # noqa: B018 - reading it may raise


def _configuration(folder: Path) -> None:
    plain(compose("label", ["detect=mates", "source=folder", "source.path=x"], str(folder)))


def fuzz(mutations: int, seed: int, *, only: str = "", keep: Path | None = None) -> Findings:
    """Spread the mutations over all readers whose name holds `only`. Files that break one are kept in `keep`."""
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="autolabel-fuzz-") as name:
        everything = [r for r in readers(Path(name)) if only in r.name]
        for number in range(mutations):
            reader = everything[number % len(everything)]
            _one(reader, random.Random(f"{seed} {number}"), f"{reader.name}, seed {seed} {number}", findings, keep)
    POOL.close()
    return findings


def _one(reader: Reader, dice: random.Random, title: str, findings: Findings, keep: Path | None) -> None:
    victim = dice.choice(reader.files)
    good = victim.read_bytes()
    victim.write_bytes(mutated(good, dice))
    findings.tried[reader.name] += 1
    started = time.process_time()
    try:
        reader.read(reader.folder)
        if time.process_time() - started > SLOW_S:
            raise TimeoutError(f"took {time.process_time() - started:.0f} s")
    except ALLOWED:
        findings.refused[reader.name] += 1
    except Exception:  # noqa: BLE001 - everything else is a finding
        where = "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
        findings.bad.append(f"{title}, {victim.name}\n{where}")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy2(victim, keep / f"{len(findings.bad):03} {victim.name}")
    finally:
        victim.write_bytes(good)


def text(findings: Findings) -> str:
    lines = [f"{sum(findings.tried.values())} mutations, {len(findings.bad)} that must not be"]
    lines += [
        f"  {name:<22} {n:>6} read, {findings.refused[name]:>6} refused" for name, n in findings.tried.items()
    ]
    return "\n".join([*lines, *findings.bad]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged files for every reader.")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this: image, coco, database, ...")
    parser.add_argument("--keep", type=Path, help="a folder for files that break something")
    arguments = parser.parse_args()
    findings = fuzz(arguments.mutations, arguments.seed, only=arguments.only, keep=arguments.keep)
    sys.stdout.write(text(findings))
    return 1 if findings.bad else 0


if __name__ == "__main__":
    sys.exit(main())
