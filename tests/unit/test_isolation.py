"""Pictures decoded by other processes: the same pixels, and no way to take this process along."""

import errno
import os
import signal
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from autolabel.core.errors import AutolabelError, ImageError
from autolabel.core.types import ImageRef, Problem
from autolabel.ops import isolation
from autolabel.ops.images import load_frame
from autolabel.ops.isolation import DecoderPool
from autolabel.store.manifest import PASSING
from tests.records import picture

BOUNDS = {"max_pixels": 10**7, "min_side": 1}


@pytest.fixture(scope="module")
def pool():
    decoders = DecoderPool()
    yield decoders
    decoders.close()


def ref(path):
    return ImageRef(path.name, str(path))


def load(pool, path, timeout_s=30.0):
    return pool.load_frame(ref(path), **BOUNDS, timeout_s=timeout_s)


@pytest.mark.parametrize("size_hw", [(1, 1), (48, 64), (900, 1300), (30, 40)])
def test_a_picture_is_the_same_wherever_it_is_decoded(pool, size_hw, tmp_path):
    path = picture(tmp_path / "ü\n.jpg", size_hw)
    here, there = load_frame(ref(path), **BOUNDS), load(pool, path)
    np.testing.assert_array_equal(here.image_rgb, there.image_rgb)
    assert (here.info, here.ref.path) == (there.info, there.ref.path)


def test_a_picture_is_not_overwritten_by_the_next(pool, tmp_path):
    first, second = (load(pool, picture(tmp_path / f"{n}.png", seed=n)) for n in range(2))
    assert (first.image_rgb != second.image_rgb).any()
    np.testing.assert_array_equal(first.image_rgb, load_frame(first.ref, **BOUNDS).image_rgb)


def test_a_relative_path_is_meant_from_where_this_process_is(pool, tmp_path, monkeypatch):
    picture(tmp_path / "sub" / "a.png")
    load(pool, tmp_path / "sub" / "a.png")  # the process is there by now
    monkeypatch.chdir(tmp_path / "sub")
    assert load(pool, Path("a.png")).ref.path == "a.png"


@pytest.mark.parametrize(("content", "code"), [(b"", "empty"), (b"text", "not_an_image"), (None, "missing")])
def test_a_bad_picture_has_the_same_reason_wherever_it_is_decoded(pool, content, code, tmp_path):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load(pool, tmp_path / "a.png")
    assert caught.value.code == code


def test_a_reference_that_has_a_problem_reads_nothing(pool):
    with pytest.raises(ImageError, match="bad_label"):
        pool.load_frame(ImageRef("a", "/a", problem=Problem("bad_label", "line 3")), **BOUNDS, timeout_s=1)


def test_a_decoder_that_hangs_is_ended_by_the_kernel_and_the_next_picture_is_read(pool, tmp_path):
    slow = tmp_path / "slow.png"
    slow.write_bytes(cv2.imencode(".png", np.zeros((3000, 3000, 3), np.uint8))[1].tobytes())
    with pytest.raises(ImageError, match="no picture after") as caught:
        load(pool, slow, timeout_s=0.001)
    assert caught.value.code == "decoder_hang"
    assert load(pool, picture(tmp_path / "a.png")).info.width == 160


def test_a_decoder_looks_at_no_file_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("json", "enum", "re", "numpy", "autolabel"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])  # a Path, which Python itself passes over
    path = picture(tmp_path / "a.png")
    decoders = DecoderPool()
    assert load(decoders, path).info.width == 160
    decoders.close()


def test_a_decoder_that_cannot_start_is_no_fault_of_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(
        AutolabelError, match=r"cannot start \(exit code 1\): ModuleNotFoundError.*decode.isolated"
    ) as caught:
        load(DecoderPool(), picture(tmp_path / "a.png"))
    assert not isinstance(caught.value, ImageError)


def test_no_limit_on_pixels_is_a_limit_like_any_other(pool, tmp_path):
    found = pool.load_frame(ref(picture(tmp_path / "a.png")), max_pixels=10**30, min_side=1, timeout_s=30.0)
    assert found.info.width == 160


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, "decoder_killed"), (signal.SIGSEGV, "decoder_crash")]
)
def test_who_ended_a_decoder_says_whether_it_may_pass(number, code, tmp_path, monkeypatch):
    """A process that is killed has done nothing wrong: the kernel does that where memory runs out."""
    program = f"""
import os, socket, sys
requests = socket.socket(fileno=int(sys.argv[2]))
requests.send(b"ready")
requests.recv(1 << 16)
os.kill(os.getpid(), {number.value})
"""
    monkeypatch.setattr(isolation, "_PROGRAM", program)
    with pytest.raises(ImageError) as caught:
        load(DecoderPool(), picture(tmp_path / "a.png"))
    assert caught.value.code == code
    assert (code in PASSING) == (number == signal.SIGKILL)


def test_a_decoder_that_was_killed_while_idle_is_replaced(pool, tmp_path):
    path = picture(tmp_path / "a.png")
    load(pool, path)
    for number in pool.processes():
        os.kill(number, signal.SIGSEGV)
    assert load(pool, path).info.width == 160


def test_a_decoder_has_a_limit_on_its_memory_and_writes_no_core(pool, tmp_path):
    load(pool, picture(tmp_path / "a.png"))
    (number,) = pool.processes()
    limits = Path(f"/proc/{number}/limits").read_text()
    assert limits.split("Max address space")[1].split()[0] != "unlimited"
    assert limits.split("Max core file size")[1].split()[0] == "0"


def test_threads_share_the_decoders_and_none_stays_when_they_are_closed(tmp_path):
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(8)]
    found = {}
    decoders = DecoderPool()
    threads = [
        threading.Thread(
            target=lambda some: found.update({p: load(decoders, p) for p in some}), args=(paths[n::2],)
        )
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = decoders.processes()
    assert 1 <= len(numbers) <= 2
    decoders.close()
    assert [n for n in numbers if Path(f"/proc/{n}").exists()] == []
    for path in paths:
        np.testing.assert_array_equal(found[path].image_rgb, load_frame(ref(path), **BOUNDS).image_rgb)


def test_a_picture_for_which_there_is_no_memory_fails_alone(tmp_path, monkeypatch):
    def no_room(*_arguments, **_named):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    decoders = DecoderPool()
    path = picture(tmp_path / "a.png")
    with monkeypatch.context() as patched:
        patched.setattr(isolation.mmap, "mmap", no_room)
        with pytest.raises(ImageError, match="160x120 pixels") as caught:
            load(decoders, path)
    assert caught.value.code in PASSING
    assert load(decoders, path).info.width == 160
    decoders.close()
