"""`autolabel doctor`: what is installed, what does not fit, what to do. Quick, offline, changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.parse import urlsplit

import autolabel
from autolabel.app import probe
from autolabel.app.parser import Parser
from autolabel.core.errors import AutolabelError
from autolabel.core.text import counted
from autolabel.segment.linear import is_faster
from autolabel.weights.access import Access, from_environment
from autolabel.weights.registry import SHIPPED
from autolabel.weights.verify import Row, survey

DISTRIBUTION = "autolabel-sam2"
PROBE_TIMEOUT_S = 60
HASHED_AT_MOST = 1 << 30
"""Bytes of weights that are hashed here; `autolabel weights verify` hashes all."""
OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
POISONED = ("8.3.41", "8.3.42", "8.3.45", "8.3.46")
"""ultralytics releases that carried a coin miner (its issues 18018 and 18027)."""
SAM2_CONTENT = {"1.1.0": "acca7fb223862c408063ab249f6c604192a807319ff70398cc73db6057dec1e2"}
"""`content_sha256` of the releases whose files were compared with the facebookresearch/sam2 repository."""

BOTH_TORCHES = (
    "install both from the same place: pip install --force-reinstall torch torchvision "
    "(the registry's builds run on machines without a GPU too), or both from PyTorch's CPU index"
)


WORTH_IT = 1.2
"""A gain in a few milliseconds of timing that is more than noise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how it is, what it is about, and what to do when it is not well."""

    state: Literal["ok", "warn", "FAIL"]
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state:<4}  {self.what}" + (f"  -> {self.advice}" if self.advice else "")


def main(argv: Sequence[str], *, out: TextIO | None = None) -> int:
    """Print the findings; 0 when none of them is FAIL, else 1."""
    arguments = _parser().parse_args(list(argv))
    out = out or sys.stdout
    findings = examine()
    if arguments.json:
        out.write(json.dumps([asdict(f) for f in findings], indent=2) + "\n")
    else:
        out.writelines(f"{finding}\n" for finding in findings)
        out.write(_summary(findings))
    return 1 if any(f.state == "FAIL" for f in findings) else 0


def examine() -> list[Finding]:
    """Every check, in the order in which problems are best solved."""
    # The slow imports run beside everything else.
    with _probe() as child:
        wanted = required()
        first = [*python(), *packages(wanted), *opencv(_versions(OPENCV), wanted), *sam2_content()]
        last = [*processor(), *storage()]
        lines, ended = _collect(child)
    return [*first, *imports(lines, ended), *last]


# ---------------------------------------------------------------------- Python and packages


def python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("ok", f"autolabel {autolabel.__version__}, Python {version}, {sys.platform}")]


def packages(wanted: Mapping[str, str]) -> list[Finding]:
    """Every package that autolabel asks for, except OpenCV, against the version that is installed."""
    if not wanted:
        return [Finding("warn", "autolabel is not installed as a package", "pip install autolabel-sam2")]
    installed = _versions(wanted)
    return [judge_package(name, wanted[name], installed.get(name)) for name in wanted if name not in OPENCV]


def required() -> dict[str, str]:
    """Package to version bounds, from pyproject.toml in a checkout, else from the installed metadata."""
    found = {}
    for line in _requirement_lines():
        match = re.match(r"([A-Za-z0-9._-]+)\s*([^;]*)", line)
        if match and "extra" not in line:
            found[match[1]] = match[2].strip()
    return found


def _requirement_lines() -> Sequence[str]:
    file = Path(autolabel.__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    if project.get("name") == DISTRIBUTION:
        lines: list[str] = project["dependencies"]
        return lines
    try:
        return metadata.requires(DISTRIBUTION) or ()
    except metadata.PackageNotFoundError:
        return ()


def judge_package(name: str, bounds: str, version: str | None) -> Finding:
    """Whether an installed version lies within bounds such as `>=1.3.2,<1.4`."""
    install = f"pip install '{name}{_short(bounds)}'"
    if version is None:
        return Finding("FAIL", f"{name} is not installed", install)
    if name == "ultralytics" and version in POISONED:
        why = "this release carried a coin miner; treat the machine as compromised, then"
        return Finding("FAIL", f"{name} {version}", f"{why} {install}")
    if not within(version, bounds):
        return Finding("FAIL", f"{name} {version} does not fit {bounds}", f"{install}{WHY.get(name, '')}")
    return Finding("ok", f"{name} {version}")


WHY = {
    "hydra-core": " (from 1.4 on, importing sam2 fails)",
    "torch": " (older ones run code from checkpoints: CVE-2025-32434, CVE-2026-24747)",
    "sam2": " (the only release whose content was checked)",
}


def within(version: str, bounds: str) -> bool:
    """PEP 440 for plain releases: `1.4.0rc3` counts as 1.4.0, local parts such as `+cpu` do not count."""
    have = _release(version)
    for bound in filter(None, map(str.strip, bounds.split(","))):
        match = re.match(r"(==|!=|>=|<=|<|>|~=)\s*(.+)", bound)
        if match is None:
            return False
        sign, limit = match[1], _release(match[2])
        good = {
            "==": have == limit,
            "!=": have != limit,
            ">=": have >= limit,
            "<=": have <= limit,
            "<": have < limit,
            ">": have > limit,
            "~=": have >= limit,
        }[sign]
        if not good:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(n) for n in match[0].split(".")] if match else []
    return tuple(numbers + [0] * (4 - len(numbers)))


def _short(bounds: str) -> str:
    return ",".join(b for b in bounds.split(",") if not b.strip().startswith("!="))


def _versions(names: Iterable[str]) -> dict[str, str]:
    """The installed ones of these packages."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def opencv(installed: Mapping[str, str], wanted: Mapping[str, str]) -> list[Finding]:
    """One of OpenCV's packages: all write the same folder, so two overwrite each other, and removing one breaks it."""
    if len(installed) == 1:
        name, version = next(iter(installed.items()))
        return [judge_package(name, wanted.get("opencv-python", ""), version)]
    names = " ".join(installed) or "none"
    advice = "pip install opencv-python"
    if installed:
        advice = f"pip uninstall -y {names} && {advice}"
    return [Finding("FAIL", f"OpenCV packages installed: {names}; exactly one must be", advice)]


# ---------------------------------------------------------------------- sam2


def sam2_content() -> list[Finding]:
    """Whether sam2's files are those that were checked. Its publisher in the registry is not Meta."""
    try:
        package = metadata.distribution("sam2")
    except metadata.PackageNotFoundError:
        return []  # among the requirements already
    expected = SAM2_CONTENT.get(package.version)
    if expected is None:
        return []  # so is another version
    if content_sha256(Path(str(package.locate_file("sam2")))) != expected:
        advice = "pip install --force-reinstall --no-deps sam2==1.1.0, unless you changed it yourself"
        return [Finding("warn", f"sam2 {package.version}: its files differ from those that were checked", advice)]
    return [Finding("ok", f"sam2 {package.version}: its files are those that were checked"), *_training(package)]


def _training(package: metadata.Distribution) -> list[Finding]:
    spec = util.find_spec("training")
    own = Path(str(package.locate_file("training")))
    if spec is None or spec.origin is None or own in Path(spec.origin).parents:
        return []
    what = f"`training` is {spec.origin}, and hides the package of that name that sam2 installs"
    return [Finding("warn", what, "harmless for labelling; rename it if you train SAM 2")]


def content_sha256(folder: Path) -> str:
    """One hash over the names and bytes of all .py and .yaml files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".yaml")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


# ---------------------------------------------------------------------- what the child found


def _probe() -> subprocess.Popen[str]:
    # -P: a torch.py in the current directory is not what the application would import.
    command = [sys.executable, "-P", probe.__file__]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _collect(child: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    """The child's lines, and how it ended ("" when well)."""
    try:
        text, _ = child.communicate(timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        text, _ = child.communicate()
        return _parsed(text), f"took longer than {PROBE_TIMEOUT_S} s"
    code = child.returncode
    ended = (
        "" if code == 0 else f"ended the process (signal {-code})" if code < 0 else f"ended with exit code {code}"
    )
    return _parsed(text), ended


def _parsed(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def imports(lines: Sequence[Mapping[str, Any]], ended: str) -> list[Finding]:
    """Findings of importing the heavy packages. `ended` says how the child stopped early."""
    done = {line["step"]: line for line in lines}
    findings: list[Finding] = []
    for step in probe.STEPS:
        if step not in done:
            findings.append(Finding("FAIL", f"importing {step} {ended}", f"reinstall it: {REINSTALL[step]}"))
            break  # the later ones were never tried
        error = done[step].get("error")
        findings += [_import_failed(step, error)] if error else _imported(step, done[step]["found"])
    return findings


REINSTALL = {
    "pycocotools": "pip install --force-reinstall --no-deps pycocotools",
    "cv2": "pip install --force-reinstall --no-deps opencv-python",
    "torch": BOTH_TORCHES,
    "torchvision": BOTH_TORCHES,
    "sam2": "pip install --force-reinstall --no-deps sam2==1.1.0",
}


def _import_failed(step: str, error: str) -> Finding:
    advice = REINSTALL[step]
    if "libGL" in error:
        advice = (
            "install the system's libgl1, or: pip uninstall -y opencv-python && pip install opencv-python-headless"
        )
    if step == "torchvision" and "nms" in error:
        advice = f"torch and torchvision come from different builds (one is +cpu); {BOTH_TORCHES}"
    return Finding("FAIL", f"importing {step}: {error}", advice)


def _imported(step: str, found: Mapping[str, Any]) -> list[Finding]:
    if step == "torchvision":
        return [Finding("ok", f"torchvision {found['version']} fits torch")]
    if step == "torch":
        auto = "onednn" if is_faster(found["cpu"]) and "onednn" in found["linear"] else "torch"
        return [_cuda(found), linear(found["linear"], auto)]
    return [Finding("ok", f"{step} can be imported")]


def linear(speeds: Mapping[str, float], auto: str) -> Finding:
    """Which library computes SAM 2's linear layers faster on this processor, when float32 and a CPU are used, and
    whether that is the one that `auto` means here."""
    told = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    faster = max(speeds, key=lambda name: speeds[name])
    gain = speeds[faster] / speeds[auto]
    advice = (
        f"on this CPU segment.linear={faster} computes them {gain:.1f} times as fast" if gain > WORTH_IT else ""
    )
    return Finding("ok", f"float32 linear layers, GFLOP/s: {told}; segment.linear=auto is {auto} here", advice)


def _cuda(found: Mapping[str, Any]) -> Finding:
    build = f"torch {found['version']}, CUDA {found['cuda'] or 'not in this build'}"
    if found["devices"]:
        return Finding("ok", f"{build}; " + ", ".join(_device(d) for d in found["devices"]))
    if not Path("/proc/driver/nvidia/version").exists():
        return Finding("ok", f"{build}; no NVIDIA GPU: models run on the CPU")
    advice = (
        "install a torch build with CUDA" if found["cuda"] is None else "the driver may be older than this build"
    )
    return Finding("warn", f"{build}; there is an NVIDIA driver, but torch sees no GPU", advice)


def _device(device: Mapping[str, Any]) -> str:
    major, minor = device["capability"]
    # bfloat16 is native from Ampere (8.0) on.
    precision = "bfloat16" if major >= 8 else "no native bfloat16"
    return f"{device['name']} ({device['bytes'] / 2**30:.0f} GiB, {major}.{minor}, {precision})"


# ---------------------------------------------------------------------- the machine


def processor() -> list[Finding]:
    """CPU threads, and whether bfloat16 is worth while on this CPU."""
    threads, set_to = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    bf16 = "with" if {"avx512_bf16", "amx_bf16", "bf16"} & _cpu_flags() else "without"
    what = f"CPU: {threads} threads, {bf16} bfloat16 instructions"
    if set_to == "1" and threads > 1:
        return [Finding("warn", f"{what}; OMP_NUM_THREADS=1", "models use one thread: unset OMP_NUM_THREADS")]
    return [Finding("ok", what)]


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def storage() -> list[Finding]:
    """Cache, weights and network, as the environment sets them."""
    try:
        access = from_environment()
        return [*cache_place(access), *weights(access), network(access, os.environ)]
    except AutolabelError as error:
        return [Finding("FAIL", str(error), "correct the environment variable, or the file it names")]


def cache_place(access: Access) -> list[Finding]:
    """Whether the cache can be written, found out on the nearest folder that exists."""
    place = access.cache
    while not place.is_dir() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    what = f"cache {access.weights}: {free / 1e9:.1f} GB free"
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        advice = "set AUTOLABEL_CACHE to a folder that you may write, or place the weights there by hand"
        return [Finding("warn", f"{what}, not writable ({error.strerror})", advice)]
    if free < 2e9:
        return [Finding("warn", what, "large models need up to 1 GB; set AUTOLABEL_CACHE to another disk")]
    return [Finding("ok", what)]


def weights(access: Access) -> list[Finding]:
    """The package's own weights and those in the cache, hashed up to a size that stays quick."""
    hashed = sum(row.bytes or 0 for row in survey(access, hashed=False)) <= HASHED_AT_MOST
    rows = survey(access, hashed=hashed)
    own = {entry.name for entry in SHIPPED}
    findings = [finding for row in rows if (finding := judge_weights(row, shipped=row.name in own))]
    if not any(row.state in ("ok", "present", "unpinned") for row in rows if row.name not in own):
        advice = "the first run fetches what it needs"
        if access.offline:
            advice = "only the models of the package work offline: autolabel label PATH experiment=offline"
        findings.append(Finding("warn" if access.offline else "ok", "no downloaded weights", advice))
    if not hashed:
        findings.append(Finding("ok", "weights in the cache are not hashed here", "autolabel weights verify"))
    return findings


def judge_weights(row: Row, *, shipped: bool) -> Finding | None:
    """What to say of one file; None when it is not there and need not be."""
    again = "install autolabel again" if shipped else f"autolabel weights fetch {row.name}"
    if row.state == "absent":
        return Finding("FAIL", f"weights {row.name}: missing from the package", again) if shipped else None
    if row.state == "corrupt":
        return Finding("FAIL", f"weights {row.name}: {row.note}", again)
    if row.state in ("unpinned", "partial"):
        what = "fetched in part" if row.state == "partial" else "no known hash"
        return Finding("warn", f"weights {row.name}: {what}", again)
    return Finding("ok", f"weights {row.name}: {'verified' if row.state == 'ok' else 'there'}")


def network(access: Access, environment: Mapping[str, str]) -> Finding:
    """What is allowed. Nothing is contacted, and a proxy's password is not shown."""
    parts = [
        "network: off (AUTOLABEL_OFFLINE)"
        if access.offline
        else "network: used for weights, and for storages and clusters whose address you give"
    ]
    if access.require_pinned:
        parts.append("only files with a known hash")
    for name in ("HTTPS_PROXY", "https_proxy"):
        if proxy := environment.get(name):
            parts.append(f"through {urlsplit(proxy).hostname or 'a proxy'}")
            break
    return Finding("ok", ", ".join(parts))


# ---------------------------------------------------------------------- the command


def _summary(findings: Sequence[Finding]) -> str:
    failed = sum(f.state == "FAIL" for f in findings)
    warned = sum(f.state == "warn" for f in findings)
    if not failed:
        return counted(warned, "ready to label; {} warning[|s]\n")
    return f"{counted(failed, '{} problem[|s]')} to solve, {counted(warned, '{} warning[|s]')}\n"


def _parser() -> Parser:
    parser = Parser(prog="autolabel doctor", description="What is installed, what does not fit, what to do.")
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    return parser
