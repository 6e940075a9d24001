"""Paths and addresses, asked the same questions; and what never leaves the door to a storage."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolabel.core.errors import ConfigError, ImageError, MissingExtra
from autolabel.core.types import ImageRef
from autolabel.ops import storage
from autolabel.ops.arrow import pyarrow
from autolabel.ops.images import load_frame, read_bytes
from autolabel.ops.isolation import DecoderPool
from tests.fakes import draw

SECRET = "wJalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "s3://bucket/a b/c?.jpg",
        "hf://datasets/u/r@main/x",
        "abfs://box@account/x",
        "sftp://me@host:22/x",
    ],
)
def test_an_address_without_secrets_stays_as_it_is(url):
    assert storage.checked_url(url) == url
    assert storage.checked_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAEXAMPLE:{SECRET}@bucket/x", f"s3://AKIA:{SECRET[:9]}/{SECRET[9:]}@bucket/x", f"s3://{SECRET}@bucket/x",
        f"s3://bucket/x?X-Amz-Signature={SECRET}", f"sftp://me:{SECRET}@host/x", f"S3://k:{SECRET}@b", f"s3://k:{SECRET}",
    ],
)  # fmt: skip
def test_an_address_with_a_secret_is_refused_and_the_secret_is_not_said(url):
    with pytest.raises(ConfigError, match="credentials belong in the environment") as caught:
        storage.checked_url(url)
    assert SECRET not in str(caught.value)
    assert SECRET[9:] not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "zip://a.zip::s3://b/x", "simplecache://x", "https://example.com/a.jpg", "ftp://h/a"],
)
def test_an_address_that_is_no_storage_is_refused(url):
    with pytest.raises(ConfigError, match="address"):
        storage.checked_url(url)


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """`here/link` leads to `far/d`; with a file `x` in every folder."""
    for folder in ("here/sub", "far/d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to("../far/d")
    (tmp_path / "far" / "d" / "again").symlink_to(tmp_path / "here" / "sub")
    for folder in ("", "here", "here/sub", "far", "far/d"):
        (tmp_path / folder / "x").write_text(folder)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("x", "here/x"), ("link/x", "here/link/x"), ("sub/../x", "here/x"), ("./sub/.././x", "here/x"), ("../here/x", "here/x"),
        ("link/../x", "far/x"), ("link/.//../x", "far/x"), ("sub/../link/../d/x", "far/d/x"), ("link/../../x", "x"),
        ("link/again/../x", "here/x"), ("link/../d/again/x", "far/d/again/x"), ("none/../x", "here/x"), ("link/..", "far"),
    ],
)  # fmt: skip
def test_two_dots_behind_a_link_are_the_folder_above_where_it_leads(path, wanted, linked):
    for written in (path, f"{linked}/here/{path}"):
        found = storage.absolute(written)
        assert found == str(linked / wanted)
        if not path.startswith("none"):
            assert Path(found).samefile(written)


def test_above_the_root_is_the_root():
    assert [storage.absolute(path) for path in ("/..", "/../../etc", "/")] == ["/", "/etc", "/"]


def test_a_storage_that_nobody_knows_and_one_without_its_package_say_so(monkeypatch):
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "0")
    with pytest.raises(ConfigError, match="'nowhere://b/x': Protocol not known"):
        storage.require_driver("nowhere://b/x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'autolabel-sam2\[s3\]'"):
        storage.require_driver("s3://bucket/x")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    with pytest.raises(MissingExtra, match="hf:// needs a package: pip install huggingface_hub"):
        storage.require_driver("hf://datasets/me/set")


def test_parquet_without_its_package_names_the_distribution(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'autolabel-sam2\[parquet\]'"):
        pyarrow()


@pytest.mark.parametrize(
    ("url", "root", "above"),
    [
        ("s3://b/x/y", "s3://b", "s3://b/x"),
        ("s3://b", "s3://b", "s3://b"),
        ("hf://datasets/me/set/train", "hf://datasets/me/set", "hf://datasets/me/set"),
        ("hf://me/model/x", "hf://me/model", "hf://me/model"),
    ],
)
def test_nothing_is_above_the_root_of_a_storage(url, root, above):
    assert storage.storage_of(url) == root
    assert storage.parent(url) == above
    assert storage.normal(f"{url}/../../../../..").startswith(root)


@given(st.lists(st.sampled_from(["..", ".", "a", "", "b c"]), max_size=6))
def test_no_path_leads_out_of_a_storage(parts):
    found = storage.normal("/".join(["s3://bucket", *parts]))
    assert found == "s3://bucket" or found.startswith("s3://bucket/")
    assert ".." not in found


def test_paths_of_this_machine_and_addresses_answer_alike(tmp_path, bucket):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"x")
    bucket("/in/a/b.txt", b"x")
    for place in ("", "a", "a/b.txt", "a/c.txt"):
        here, there = f"{tmp_path}/{place}".rstrip("/"), f"memory://in/{place}".rstrip("/")
        for question in (storage.exists, storage.is_folder, storage.is_file):
            assert question(here) == question(there), (question, place)
    assert storage.names_in(f"{tmp_path}/a") == storage.names_in("memory://in/a") == ["b.txt"]


def test_the_stamp_of_a_file_changes_with_it(bucket):
    bucket("/in/a", b"x")
    bucket("/in/b", b"y")
    first, second = storage.items_in("memory://in")
    assert [first.name, second.name] == ["a", "b"]
    assert first.stamp[0] == 1
    bucket("/in/a", b"z")
    assert [
        item.stamp != old.stamp for item, old in zip(storage.items_in("memory://in"), (first, second), strict=True)
    ] == [
        True,
        False,
    ]


@pytest.mark.parametrize("info", [{"ETag": '"abc"', "LastModified": 5}, {"mtime": 3.5}, {"created": 1}, {}])
def test_a_stamp_fits_a_database_whatever_the_driver_says(info):
    size, version = storage.stamp_of({"size": 7, **info})
    assert size == 7
    assert 0 <= version < 1 << 63
    assert storage.stamp_of({"size": 7, **info}) == (size, version)


def test_a_file_that_is_too_large_is_not_fetched(leaking):
    leaking.append(AssertionError("it was fetched"))
    with pytest.raises(OSError, match="4 bytes, more than 3"):
        storage.read("leaking://b/a.png", 3)
    with pytest.raises(OSError, match="9 bytes, more than 3"):
        storage.read("leaking://b/a.png", 3, size=9)


def test_an_error_that_passes_is_tried_again_and_one_that_stays_is_told_without_secrets(leaking, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    leaking += [RuntimeError("slow down"), ConnectionError("reset")]
    assert storage.read("leaking://b/a.png", 9) == b"data"
    leaking += [RuntimeError(f"no key {SECRET} at https://h/x?sig={SECRET[:12]} for s3://u:{SECRET[:9]}@b")] * 3
    with pytest.raises(OSError, match="no key") as caught:
        storage.read("leaking://b/a.png", 9)
    assert caught.value.errno == errno.EIO
    assert SECRET not in str(caught.value)
    assert SECRET[:9] not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError("x"), "missing"),
        (PermissionError("denied"), "permission"),
        (type("NoCredentialsError", (Exception,), {})("x"), "permission"),
        (ValueError("odd"), "io_error"),
    ],
)
def test_whatever_a_driver_raises_is_one_code_of_a_picture(leaking, error, code):
    leaking += [error] * 3
    with pytest.raises(ImageError) as caught:
        read_bytes("leaking://b/a.png", 4)
    assert caught.value.code == code


def test_an_empty_file_and_a_folder_are_no_pictures(bucket):
    bucket("/in/empty.png", b"")
    for name, code in (("empty.png", "empty"), ("", "is_a_directory"), ("absent.png", "missing")):
        with pytest.raises(ImageError) as caught:
            read_bytes(f"memory://in/{name}".rstrip("/"))
        assert caught.value.code == code


def test_a_picture_at_an_address_is_decoded_elsewhere_as_here(tmp_path, bucket):
    data = draw(tmp_path / "a.png", {0: (2, 3, 12, 9)}).read_bytes()
    bucket("/in/a.png", data)
    bucket("/in/b.png", data[:40])
    ref = ImageRef("a.png", "memory://in/a.png", stamp=(len(data), 1))
    bounds = {"max_pixels": 10**6, "min_side": 1}
    pool = DecoderPool()
    try:
        here, there = load_frame(ref, **bounds), pool.load_frame(ref, **bounds, timeout_s=30)
        assert (here.image_rgb == there.image_rgb).all()
        assert here.info == there.info
        with pytest.raises(ImageError):
            pool.load_frame(ImageRef("b.png", "memory://in/b.png"), **bounds, timeout_s=30)
        assert (pool.load_frame(ref, **bounds, timeout_s=30).image_rgb == here.image_rgb).all()
        assert len(pool.processes()) == 1
    finally:
        pool.close()


@given(st.lists(st.integers(), max_size=40), st.integers(1, 4))
def test_answers_come_in_the_order_of_the_questions(items, threads):
    assert list(storage.in_parallel(lambda x: -x, items, threads=threads)) == [-x for x in items]


def test_no_more_is_asked_than_somebody_waits_for():
    asked = []
    answers = storage.in_parallel(asked.append, range(1000), threads=2)
    next(answers)
    assert len(asked) <= 5
    answers.close()


def test_nobody_loads_fsspec_who_has_no_address():
    program = (
        "import sys, autolabel.app.label, autolabel.store.run, autolabel.source.folder;"
        "assert not {'fsspec', 's3fs', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def refused(monkeypatch, offline):
    """What offline says about an address, and that no driver is asked for: it might look for credentials."""
    monkeypatch.setenv("AUTOLABEL_OFFLINE", offline)
    monkeypatch.setattr("fsspec.filesystem", lambda *_, **__: pytest.fail("a driver was opened"))
    return pytest.raises(ConfigError, match=r"'s3://bucket/x' is on the network, which offline=true .* forbids")


@pytest.mark.parametrize(
    "ask", [storage.exists, storage.names_in, storage.opened, storage.size_of, storage.require_driver]
)
def test_offline_forbids_addresses_before_a_driver_is_there(monkeypatch, ask):
    with refused(monkeypatch, "1"):
        ask("s3://bucket/x")


def test_offline_does_not_forbid_a_storage_of_this_process(monkeypatch, bucket):
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "1")
    bucket("/photos/a.png", b"data")
    assert storage.read("memory://photos/a.png", 9) == b"data"
