"""`autolabel weights list | fetch NAME... | verify`: what there is, bring it, check it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TextIO

from autolabel.app.parser import Parser
from autolabel.core.errors import ConfigError, WeightsError
from autolabel.weights.access import Access, from_environment
from autolabel.weights.fetch import Progress
from autolabel.weights.obtain import INSTEAD, obtain, resolve, shipped, size_text
from autolabel.weights.registry import Published, Shipped, find
from autolabel.weights.verify import Row, survey

if TYPE_CHECKING:
    from tqdm import tqdm

HELP = f"""\
examples
  autolabel weights list
  autolabel weights fetch yolo26m sam2.1_hiera_small       before a run without network
  autolabel weights verify                                 hash everything that is there
no downloads wanted: {INSTEAD}
"""


def main(argv: Sequence[str], *, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Run one command; 0 when all went well, 1 when something is missing or damaged. Raises ConfigError."""
    arguments = _parser().parse_args(list(argv))
    out, access = out or sys.stdout, from_environment()
    if arguments.command == "fetch":
        if arguments.trust_first:
            access = replace(access, trust_first=True)
        return fetch(arguments.names, access, sha256=arguments.sha256, out=out, err=err or sys.stderr)
    return list_weights(access, out=out) if arguments.command == "list" else verify(access, out=out)


def list_weights(access: Access, *, out: TextIO) -> int:
    """Every known file, its size, and whether it is here. Reads no file's bytes."""
    out.writelines(_table(survey(access, hashed=False), _listed, ("name", "state", "bytes", "licence", "setting")))
    out.write(f"cache: {access.weights}\n")
    return 0


def verify(access: Access, *, out: TextIO) -> int:
    """Hash every file that is here; 1 when one is damaged or unpinned, or the package's own are missing."""
    rows = [r for r in survey(access, hashed=True) if r.state not in ("absent", "partial") or _is_shipped(r)]
    out.writelines(_table(rows, _verified, ("name", "state", "bytes", "sha256", "note")))
    bad = [row for row in rows if row.state != "ok"]
    out.write(f"{len(rows) - len(bad)} of {len(rows)} files verified; cache: {access.weights}\n")
    out.writelines(f"{row.name}: {row.path} {_advice(row)}\n" for row in bad)
    return 1 if bad else 0


def fetch(names: Sequence[str], access: Access, *, sha256: str | None, out: TextIO, err: TextIO) -> int:
    """Bring each file to the cache, replacing damaged ones; 1 when one of them could not be had."""
    if sha256 is not None and len(names) != 1:
        raise ConfigError(f"--sha256 states the hash of one file, but {len(names)} names are given")
    failed = 0
    for name in names:
        try:
            out.write(f"{_fetched(name, access, sha256, out)}\n")
        except WeightsError as error:
            failed += 1
            err.write(f"{name}: {error}\n")
    return 1 if failed else 0


def _fetched(name: str, access: Access, sha256: str | None, out: TextIO) -> str:
    entry = find(name)
    if isinstance(entry, Shipped):
        return f"{entry.name}: in the package, verified, sha256 {shipped(entry, sha256).sha256}"
    if entry is None:
        # A path needs no fetching, and an unknown name gets the message that helps.
        return f"{name}: your own file, sha256 {resolve(name, sha256=sha256).sha256}"
    if not (access.weights / entry.file).is_file() and not access.offline:
        out.write(f"{entry.name}: {size_text(entry.bytes)} from {entry.url}, licence {entry.licence}\n")
    with Bar() as bar:
        got = obtain(entry, access, stated=sha256, progress=bar, repair=True)
    return f"{entry.name}: verified, sha256 {got.sha256}, {got.path}"


class Bar:
    """A progress bar that appears with the first byte; silent where nobody watches (no terminal)."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Progress:
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, name: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=total, initial=done, desc=name, unit="B", unit_scale=True, disable=None, leave=False
            )
        self._bar.update(done - self._bar.n)


def _is_shipped(row: Row) -> bool:
    """Whether the row is one of the package's own files, which must be there."""
    return isinstance(find(row.name), Shipped)


def _advice(row: Row) -> str:
    if _is_shipped(row):
        return f"is {row.state}: install autolabel again"
    if row.state == "unpinned":
        return f"has no known hash: autolabel weights fetch {row.name} --sha256 HEX, or --trust-first"
    entry = find(row.name)
    page = f" (published at {entry.page})" if isinstance(entry, Published) else ""
    return f"is {row.state}: autolabel weights fetch {row.name} fetches it again{page}"


def _listed(row: Row) -> tuple[str, ...]:
    size = row.bytes if row.published_bytes is None else row.published_bytes
    return row.name, row.state, "?" if size is None else f"{size:,}", row.licence, " ".join(row.configs)


def _verified(row: Row) -> tuple[str, ...]:
    return row.name, row.state, "-" if row.bytes is None else f"{row.bytes:,}", (row.sha256 or "-")[:16], row.note


def _table(rows: Sequence[Row], cells: Callable[[Row], tuple[str, ...]], head: tuple[str, ...]) -> list[str]:
    """Lines with aligned columns; the column `bytes` to the right."""
    lines = [head, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if title == "bytes" else cell.ljust(width)
            for cell, width, title in zip(line, widths, head, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    ]


def _parser() -> Parser:
    parser = Parser(
        prog="autolabel weights",
        description="List, fetch or verify model weights.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|fetch|verify")
    commands.add_parser("list", help="every known file, and whether it is here")
    commands.add_parser("verify", help="hash every file that is here")
    bring = commands.add_parser("fetch", help="bring files to the cache")
    bring.add_argument("names", nargs="+", metavar="NAME", help="a name from `autolabel weights list`")
    bring.add_argument("--sha256", metavar="HEX", help="the hash that the file must have")
    bring.add_argument(
        "--trust-first", action="store_true", help="where no hash is published, accept the first file and pin it"
    )
    return parser
