"""What is known about weights, which file a name means, and what the commands say."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.app import weights as command
from autolabel.core.errors import ConfigError, WeightsCorrupt, WeightsError, WeightsMissing
from autolabel.weights import ResolvedWeights, resolve
from autolabel.weights.access import Access, from_environment
from autolabel.weights.obtain import shipped
from autolabel.weights.registry import ENTRIES, PUBLISHED, SHIPPED, Published, Shipped, find
from autolabel.weights.verify import survey

DEFAULT_PAIR = ("yolo26m", "sam2.1_hiera_small")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setenv("AUTOLABEL_CACHE", str(tmp_path))
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "1")
    return tmp_path / "weights"


def nano(folder: Path, content: bytes = b"nano weights") -> Shipped:
    """A shipped entry with its card."""
    path = folder / "model.safetensors"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    return Shipped("nano_model", path, "Apache-2.0", ())


# ---------------------------------------------------------------------- the registry


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda e: e.name)
def test_every_entry_is_complete(entry: Published) -> None:
    assert entry.url.startswith("https://")
    assert entry.file == f"{entry.name}.pt"
    assert entry.licence in ("Apache-2.0", "AGPL-3.0")
    assert entry.page.startswith("https://")
    assert entry.configs
    assert entry.note


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda e: e.name)
def test_a_hash_is_well_formed_or_absent_and_then_unconfirmed(entry: Published) -> None:
    if entry.sha256 is None:
        assert not entry.confirmed
    else:
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.bytes is not None


def test_names_and_hashes_are_unique() -> None:
    assert len({e.name for e in ENTRIES}) == len(ENTRIES)
    hashes = [e.sha256 for e in PUBLISHED if e.sha256]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("name", DEFAULT_PAIR)
def test_the_default_pair_is_pinned(name: str) -> None:
    entry = find(name)
    assert isinstance(entry, Published)
    assert entry.sha256
    assert entry.bytes


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_a_name_is_found_with_and_without_its_ending(entry: Published | Shipped) -> None:
    assert find(entry.name) is entry
    assert find(f"{entry.name}.pt") is entry


# ---------------------------------------------------------------------- shipped weights


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda e: e.name)
def test_what_is_shipped_is_what_its_card_pins(entry: Shipped) -> None:
    assert resolve(entry.name).sha256 == hashlib.sha256(entry.path.read_bytes()).hexdigest()


@given(position=st.integers(0, 11), bit=st.integers(0, 7))
def test_one_flipped_bit_of_shipped_weights_is_refused(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    entry = nano(tmp_path_factory.mktemp("nano"))
    damaged = bytearray(entry.path.read_bytes())
    damaged[position] ^= 1 << bit
    entry.path.write_bytes(damaged)
    with pytest.raises(WeightsCorrupt, match="install autolabel again"):
        shipped(entry)


@pytest.mark.parametrize("card", ["", "{}", "[]", '{"sha256": "00"}', '{"sha256": null}'])
def test_a_damaged_card_is_refused(tmp_path: Path, card: str) -> None:
    entry = nano(tmp_path)
    entry.card.write_text(card)
    with pytest.raises(WeightsCorrupt):
        shipped(entry)


def test_shipped_weights_that_are_gone_say_what_to_do(tmp_path: Path) -> None:
    entry = nano(tmp_path)
    entry.path.unlink()
    with pytest.raises(WeightsMissing, match="install autolabel again"):
        shipped(entry)


# ---------------------------------------------------------------------- names and paths


def test_a_file_of_ones_own_is_taken_as_it_is_and_hashed(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "my best.pt"
    own.write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    assert resolve(str(own)) == ResolvedWeights("my best.pt", own, digest)
    assert resolve(str(own), sha256=f"sha256:{digest.upper()}").sha256 == digest
    with pytest.raises(WeightsCorrupt, match="was stated"):
        resolve(str(own), sha256="0" * 64)


def test_a_registry_name_means_the_registrys_file_and_a_path_means_the_path(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("yolo26m.pt").write_bytes(b"lies here by chance")
    with pytest.raises(WeightsMissing):
        resolve("yolo26m.pt")
    assert resolve("./yolo26m.pt").sha256 == hashlib.sha256(b"lies here by chance").hexdigest()


def test_a_wrong_file_in_the_cache_is_refused_under_a_pinned_name(cache: Path) -> None:
    cache.mkdir()
    (cache / "yolo26m.pt").write_bytes(b"another model")
    with pytest.raises(WeightsCorrupt, match=str(cache / "yolo26m.pt")):
        resolve("yolo26m")


@pytest.mark.parametrize("name", DEFAULT_PAIR)
def test_offline_the_message_has_the_file_the_place_and_the_way_out(cache: Path, name: str) -> None:
    with pytest.raises(WeightsMissing) as caught:
        resolve(name)
    entry = find(name)
    assert isinstance(entry, Published)
    for part in (f"{entry.bytes:,} bytes", entry.url, str(cache / entry.file), "experiment=offline"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("name", "close"), [("yolo26", "yolo26"), ("sam2.1_small", "sam2.1_hiera_small")])
def test_an_unknown_name_gets_suggestions(cache: Path, name: str, close: str) -> None:
    with pytest.raises(WeightsError, match=rf"did you mean .*{re.escape(close)}"):
        resolve(name)


@pytest.mark.parametrize("path", ["models/nowhere.pt", "/nowhere/x.safetensors", "~/none/x.pt"])
def test_a_path_that_leads_nowhere_is_called_missing(cache: Path, path: str) -> None:
    with pytest.raises(WeightsMissing, match="does not exist"):
        resolve(path)


@pytest.mark.parametrize("text", ["abc", "g" * 64, "0" * 63])
def test_a_malformed_hash_is_refused(cache: Path, text: str) -> None:
    with pytest.raises(WeightsError, match="64 hexadecimal"):
        resolve("yolo26m", sha256=text)


# ---------------------------------------------------------------------- what is allowed


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AUTOLABEL_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, Path("/a/b")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/autolabel")),
        ({"XDG_CACHE_HOME": "relative"}, Path.home() / ".cache" / "autolabel"),
        ({}, Path.home() / ".cache" / "autolabel"),
    ],
)
def test_the_cache_is_where_the_environment_says(environment: dict[str, str], expected: Path) -> None:
    assert from_environment(environment).cache == expected


@pytest.mark.parametrize(
    ("text", "meaning"), [("1", True), ("True", True), ("off", False), ("", False), ("0", False)]
)
def test_switches_are_read_and_nothing_is_guessed(text: str, meaning: bool) -> None:
    assert from_environment({"AUTOLABEL_OFFLINE": text}).offline is meaning
    with pytest.raises(ConfigError, match="AUTOLABEL_REQUIRE_PINNED must be 1 or 0"):
        from_environment({"AUTOLABEL_REQUIRE_PINNED": "perhaps"})


def test_looking_for_weights_loads_no_heavy_package() -> None:
    code = (
        "import sys, autolabel.weights, autolabel.app.weights; print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---------------------------------------------------------------------- the commands


def run(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = command.main(argv, out=out, err=err)
    return code, out.getvalue(), err.getvalue()


def test_list_shows_every_name_and_the_place(cache: Path) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(entry.name in out for entry in ENTRIES)
    assert str(cache) in out


def test_list_tells_present_wrong_and_interrupted_files_apart(cache: Path) -> None:
    cache.mkdir()
    (cache / "rtdetr-x.pt").write_bytes(b"anything")
    (cache / "yolo26n.pt").write_bytes(b"too short")
    (cache / "yolo26s.pt.partial").write_bytes(b"begun")
    states = {row.name: row.state for row in survey(Access(cache.parent), hashed=False)}
    assert states["rtdetr-x"] == "present"
    assert states["yolo26n"] == "corrupt"
    assert states["yolo26s"] == "partial"
    assert states["yolo26m"] == "absent"


def test_verify_names_what_is_damaged_or_unvouched_and_what_to_do(cache: Path) -> None:
    cache.mkdir()
    (cache / "rtdetr-x.pt").write_bytes(b"anything")
    (cache / "yolo26n.pt").write_bytes(b"\0" * 5_544_453)
    code, out, _ = run("verify")
    assert code == 1
    assert "autolabel weights fetch yolo26n" in out
    assert "autolabel weights fetch rtdetr-x --sha256 HEX, or --trust-first" in out


def test_fetch_of_a_file_in_the_cache_needs_no_network_and_records_a_stated_hash(cache: Path) -> None:
    cache.mkdir()
    (cache / "rtdetr-x.pt").write_bytes(b"anything")
    digest = hashlib.sha256(b"anything").hexdigest()
    code, out, _ = run("fetch", "rtdetr-x", "--sha256", digest)
    assert code == 0
    assert digest in out
    assert resolve("rtdetr-x").sha256 == digest


def test_fetch_goes_on_after_a_failure_and_says_which_failed(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pt"
    own.write_bytes(b"mine")
    code, out, err = run("fetch", "yolo26m", str(own), "yolo99")
    assert code == 1
    assert "own.pt: your own file" in out
    assert err.count("\n") == 2
    assert "experiment=offline" in err


@pytest.mark.parametrize(
    "argv", [(), ("fetch",), ("bring", "x"), ("list", "--what"), ("fetch", "a", "b", "--sha256", "0" * 64)]
)
def test_wrong_usage_is_a_config_error(cache: Path, argv: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        run(*argv)
