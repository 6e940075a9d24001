"""A dated page of results: what was measured on what, and a name that no earlier page has."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
DECIDING = ("autolabel", "configs", "benchmarks")
"""Folders of a checkout whose files decide the figures."""


def publish(folder: Path, stem: str, text: str, beyond: str = "") -> int:
    """On the screen and as a page; the exit code, 1 where something is `beyond` its limits or not known to be
    within."""
    sys.stdout.write(text)
    sys.stderr.write(f"written: {write_page(folder, stem, text)}\n")
    if beyond:
        sys.stderr.write(f"not known to be within their limits: {beyond}\n")
    return 1 if beyond else 0


def write_page(folder: Path, stem: str, text: str) -> Path:
    """Into `folder`, under today's date; an earlier page of the day stays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = free_path(folder, f"{stem}_{datetime.now(UTC):%Y-%m-%d}")
    path.write_text(text, "utf-8")
    return path


def free_path(folder: Path, stem: str) -> Path:
    """`stem.md`, or the first of `stem-2.md`, `stem-3.md` ... that is not there."""
    path, number = folder / f"{stem}.md", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.md"
    return path


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


def told(module: str, arguments: Sequence[str]) -> str:
    """The command, for a page that others read: of a path only its name."""
    return shlex.join(["python", "-m", module, *(Path(one).name if "/" in one else one for one in arguments)])


def commit(root: Path = RESULTS.parents[1]) -> str:
    """`commit 1a2b3c4`, with a note where files beside it decided the figures; `no commit` outside a checkout."""
    known = _git(root, "rev-parse", "--short", "HEAD")
    if not known:
        return "no commit"
    changed = _git(root, "status", "--porcelain", "--", *DECIDING)
    return f"commit {known}{' and changes that are not committed' if changed else ''}"


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of the same columns as Markdown."""
    if not rows:
        return []
    head = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    return [*head, *(f"| {' | '.join(row[title] for title in rows[0])} |" for row in rows)]
