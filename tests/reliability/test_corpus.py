"""Every bad picture becomes what it must become, no process dies of it, and no good picture is lost with it."""

import os
from pathlib import Path

import pytest

from autolabel.core.errors import ImageError
from autolabel.core.types import ImageRef
from autolabel.ops.isolation import DecoderPool
from tests.fakes import album
from tests.reliability.corpus import write_all
from tests.reliability.plans import COMMAND, Bench

BOUNDS = {"max_pixels": 200_000_000, "min_side": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, write_all(folder)


def test_there_are_at_least_150_of_them(corpus):
    assert len(corpus[1]) >= 150


def outcome(pool: DecoderPool, path: Path) -> str:
    """The code of what became of a picture, whose reason is one line for people."""
    try:
        frame = pool.load_frame(ImageRef(path.name, str(path)), **BOUNDS, timeout_s=30)
    except ImageError as error:
        return error.code if error.detail and "\n" not in error.detail else f"{error.code} in several lines"
    return "ok" if frame.image_rgb.shape == (*frame.info.size_hw, 3) else "wrong size"


def test_each_becomes_what_it_must_and_no_decoder_dies(corpus):
    folder, expected = corpus
    pool = DecoderPool()
    found = {name: outcome(pool, folder / name) for name in expected}
    pool.close()
    assert {name: code for name, code in found.items() if code not in expected[name]} == {}


def test_one_bad_file_costs_no_good_file(corpus, nursery, tmp_path):
    folder, expected = corpus
    album(tmp_path / "in", 8)
    (tmp_path / "in" / "bad").symlink_to(folder)
    bench = Bench(nursery, tmp_path)
    ended = nursery.run(COMMAND, *bench.arguments("run"))
    assert ended.code == 2, ended
    assert "Traceback" not in ended.text
    rows = bench.rows("run")
    good = {name for name in rows if not name.startswith("bad/")}
    assert len(good) == 8
    assert {rows[name][0] for name in good} <= {"ok", "empty"}
    listed = {os.fsdecode(os.fsencode(f"bad/{name}")) for name in expected}
    # What a walk leaves out on purpose (folders, pipes by their kind, names that begin with a dot) has no row.
    assert {name for name in listed - rows.keys() if not Path(name).name.startswith(".")} <= {
        "bad/folder.png", "bad/pipe.png", "bad/socket.png", "bad/zero device.png",
    }  # fmt: skip
