"""Against a real server on 127.0.0.1: whole, cut, resumed, wrong, missing, busy, concurrent."""

from __future__ import annotations

import hashlib
import io
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from autolabel.core.errors import WeightsCorrupt, WeightsError, WeightsMissing
from autolabel.weights import cache
from autolabel.weights.access import Access
from autolabel.weights.fetch import ROOM, Transport, Wanted, _SafeRedirects, fetch
from autolabel.weights.obtain import obtain
from autolabel.weights.registry import Published

BODY = hashlib.shake_256(b"weights").digest(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
LOCAL = Transport(timeout_s=5, pauses_s=(0.0, 0.0), allow_http=True)


@dataclass
class Site:
    """What the server does: a body, and faults that are used up one by one."""

    body: bytes = BODY
    etag: str | None = '"v1"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect: str | None = None
    says_length: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.requests.append({key.lower(): value for key, value in self.headers.items()})
        if site.statuses and (status := site.statuses.pop(0)) != 200:
            self.send_error(status)
        elif site.redirect and self.path == "/old":
            self.send_response(302)
            self.send_header("Location", site.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(self._start())

    def _start(self) -> int:
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        stale = condition is not None and condition != self.site.etag
        return 0 if asked is None or not self.site.ranges or stale else int(asked[6:-1])

    def _send(self, start: int) -> None:
        site = self.site
        if start >= len(site.body) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.says_length:
            self.send_header("Content-Length", str(len(site.body) - start))
        self.end_headers()
        stop = site.cuts.pop(0) if site.cuts else len(site.body)
        self.wfile.write(site.body[start:stop])

    def log_message(self, *_: object) -> None:
        """The test's output stays clean."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": state}))
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def wanted(site: Site, tmp_path: Path) -> Wanted:
    return Wanted(f"{site.url}/model.pt", tmp_path / "weights" / "model.pt", len(BODY), SHA256)


def entry(site: Site, *, sha256: str | None = SHA256, size: int | None = len(BODY)) -> Published:
    return Published("model", f"{site.url}/model.pt", size, sha256, "MIT", "", (), sha256 is not None, "")


def leftovers(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if p.is_file() and p != target)


def unknown_hash(wanted: Wanted) -> Wanted:
    return Wanted(wanted.url, wanted.target, None, None)


# ---------------------------------------------------------------------- one file


def test_a_whole_file_arrives_and_leaves_nothing_else(wanted: Wanted) -> None:
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert wanted.target.read_bytes() == BODY
    assert leftovers(wanted.target) == []


def test_progress_says_the_size_before_the_first_byte_and_ends_at_it(wanted: Wanted) -> None:
    seen: list[tuple[str, int, int | None]] = []
    fetch(wanted, transport=LOCAL, progress=lambda *call: seen.append(call))
    assert seen[0] == ("model.pt", 0, len(BODY))
    assert seen[-1] == ("model.pt", len(BODY), len(BODY))


def test_a_cut_connection_is_continued_by_a_range_under_the_first_validator(site: Site, wanted: Wanted) -> None:
    site.cuts = [100_000, 200_000]
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert [r.get("range") for r in site.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert site.requests[1]["if-range"] == '"v1"'


@pytest.mark.parametrize("etag", ['"v1"', None, 'W/"weak"'])
def test_a_part_kept_by_a_dead_process_is_continued_whatever_the_validator(
    site: Site, wanted: Wanted, etag: str | None
) -> None:
    site.etag, site.cuts, site.statuses = etag, [100_000], [200, 404]
    with pytest.raises(WeightsMissing):
        fetch(wanted, transport=LOCAL)
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert site.requests[-1]["range"] == "bytes=100000-"


def test_a_server_without_ranges_sends_the_whole_file_again(site: Site, wanted: Wanted) -> None:
    site.ranges, site.cuts = False, [100_000]
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert wanted.target.read_bytes() == BODY


def test_a_server_that_always_cuts_without_ranges_does_not_go_on_forever(site: Site, wanted: Wanted) -> None:
    site.ranges, site.cuts = False, [1000] * 50
    with pytest.raises(WeightsMissing, match="1,000 of 300,000 bytes"):
        fetch(wanted, transport=LOCAL)
    assert len(site.requests) == 4


def test_a_file_replaced_on_the_server_is_not_joined_to_the_old_part(site: Site, wanted: Wanted) -> None:
    site.cuts, site.statuses = [100_000], [200, 404]
    with pytest.raises(WeightsMissing):
        fetch(unknown_hash(wanted), transport=LOCAL)
    site.body, site.etag = BODY[::-1], '"v2"'
    assert fetch(unknown_hash(wanted), transport=LOCAL) == hashlib.sha256(BODY[::-1]).hexdigest()


def test_without_validator_and_hash_a_part_is_thrown_away(site: Site, wanted: Wanted) -> None:
    site.etag, site.cuts = None, [100_000]
    assert fetch(unknown_hash(wanted), transport=LOCAL) == SHA256
    assert "range" not in site.requests[1]


def test_a_damaged_part_costs_one_more_download_and_not_the_file(site: Site, wanted: Wanted) -> None:
    wanted.target.parent.mkdir()
    wanted.target.with_name("model.pt.partial").write_bytes(b"x" * 100_000)
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert [r.get("range") for r in site.requests] == ["bytes=100000-", None]


def test_a_part_that_is_complete_needs_no_server(site: Site, wanted: Wanted) -> None:
    wanted.target.parent.mkdir()
    wanted.target.with_name("model.pt.partial").write_bytes(BODY)
    assert fetch(wanted, transport=LOCAL) == SHA256
    assert site.requests == []


def test_a_part_longer_than_the_servers_file_is_forgotten(site: Site, wanted: Wanted) -> None:
    wanted.target.parent.mkdir()
    wanted.target.with_name("model.pt.partial").write_bytes(BODY + b"more")
    assert fetch(Wanted(wanted.url, wanted.target, None, SHA256), transport=LOCAL) == SHA256


def test_wrong_bytes_are_refused_and_not_kept(site: Site, wanted: Wanted) -> None:
    site.body = bytes([BODY[0] ^ 1]) + BODY[1:]
    with pytest.raises(WeightsCorrupt, match=SHA256):
        fetch(wanted, transport=LOCAL)
    assert not wanted.target.exists()
    assert leftovers(wanted.target) == []


@pytest.mark.parametrize("body", [BODY + b"x", BODY[:-1], b"<html>log in</html>"])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(site: Site, wanted: Wanted, body: bytes) -> None:
    site.body = body
    with pytest.raises(WeightsCorrupt, match="300,000"):
        fetch(wanted, transport=LOCAL)
    assert leftovers(wanted.target) == []


def test_more_bytes_than_the_file_has_are_not_taken(site: Site, wanted: Wanted) -> None:
    site.says_length, site.body = False, BODY * 4
    with pytest.raises(WeightsCorrupt, match="more than 300,000 bytes"):
        fetch(wanted, transport=LOCAL)
    assert leftovers(wanted.target) == []


def test_a_file_of_unknown_length_and_hash_is_refused(site: Site, wanted: Wanted) -> None:
    site.says_length = False
    with pytest.raises(WeightsMissing, match="how long"):
        fetch(unknown_hash(wanted), transport=LOCAL)


def test_redirects_are_followed(site: Site, wanted: Wanted) -> None:
    site.redirect = f"{site.url}/new"
    old = Wanted(f"{site.url}/old", wanted.target, len(BODY), SHA256)
    assert fetch(old, transport=LOCAL) == SHA256


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/x"])
def test_redirects_to_anything_but_the_web_are_refused(site: Site, wanted: Wanted, address: str) -> None:
    site.redirect = address
    with pytest.raises((WeightsError, WeightsMissing)):
        fetch(Wanted(f"{site.url}/old", wanted.target, len(BODY), SHA256), transport=LOCAL)
    assert not wanted.target.exists()


def test_a_redirect_that_drops_the_encryption_is_refused() -> None:
    request, answer = Request("https://example.org/x.pt"), io.BytesIO()
    with pytest.raises(WeightsError, match="https only"):
        _SafeRedirects(Transport()).redirect_request(request, answer, 302, "Found", {}, "http://example.org/x.pt")
    assert answer.closed


@pytest.mark.parametrize("url", ["http://example.org/x.pt", "file:///etc/passwd"])
def test_only_https_is_asked_without_the_switch_for_tests(tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="https only"):
        fetch(Wanted(url, tmp_path / "x.pt"))


def test_a_missing_file_is_not_asked_for_twice(site: Site, wanted: Wanted) -> None:
    site.statuses = [404] * 9
    with pytest.raises(WeightsMissing, match="404"):
        fetch(wanted, transport=LOCAL)
    assert len(site.requests) == 1


def test_a_busy_server_is_asked_again_and_only_so_often(site: Site, wanted: Wanted) -> None:
    site.statuses = [500, 503]
    assert fetch(wanted, transport=LOCAL) == SHA256
    site.statuses, site.requests = [500] * 9, []
    wanted.target.unlink()
    with pytest.raises(WeightsMissing, match="500"):
        fetch(wanted, transport=LOCAL)
    assert len(site.requests) == 3


def test_a_full_disk_is_noticed_before_the_download(wanted: Wanted) -> None:
    full = Transport(allow_http=True, free_bytes=lambda _: ROOM + len(BODY) - 1)
    with pytest.raises(WeightsError, match=r"model\.pt needs .* AUTOLABEL_CACHE"):
        fetch(wanted, transport=full)


FULL = """
import sys
from pathlib import Path
from autolabel.core.errors import WeightsError
from autolabel.weights.fetch import Transport, Wanted, fetch
url, target, size, sha256 = sys.argv[1:]
try:
    fetch(Wanted(url, Path(target), int(size), sha256), transport=Transport(allow_http=True))
except WeightsError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_fills_up_says_so_and_keeps_what_is_there(site: Site, wanted: Wanted) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = [wanted.url, str(wanted.target), str(len(BODY)), SHA256]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *arguments],
        preexec_fn=small_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot write" in done.stderr
    assert "AUTOLABEL_CACHE" in done.stderr
    assert wanted.target.with_name("model.pt.partial").read_bytes() == BODY[:100_000]
    assert fetch(wanted, transport=LOCAL) == SHA256


# ---------------------------------------------------------------------- names, access and cache


def test_the_first_call_fetches_and_the_second_asks_nobody(site: Site, tmp_path: Path) -> None:
    first = obtain(entry(site), Access(tmp_path), transport=LOCAL)
    second = obtain(entry(site), Access(tmp_path, offline=True), transport=LOCAL)
    assert first == second
    assert first.path.read_bytes() == BODY
    assert len(site.requests) == 1


@pytest.mark.parametrize("position", [0, 150_000, len(BODY) - 1])
def test_one_flipped_bit_in_the_cache_is_refused_and_repaired_on_demand(
    site: Site, tmp_path: Path, position: int
) -> None:
    path = obtain(entry(site), Access(tmp_path), transport=LOCAL).path
    damaged = bytearray(BODY)
    damaged[position] ^= 8
    path.write_bytes(damaged)
    with pytest.raises(WeightsCorrupt, match="autolabel weights fetch model"):
        obtain(entry(site), Access(tmp_path), transport=LOCAL)
    assert obtain(entry(site), Access(tmp_path), transport=LOCAL, repair=True).sha256 == SHA256
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("offline", [True, False])
def test_without_network_the_message_names_file_place_and_the_way_out(tmp_path: Path, offline: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    nowhere = entry(Site(url=f"http://127.0.0.1:{closed}"))
    with pytest.raises(WeightsMissing) as caught:
        obtain(nowhere, Access(tmp_path, offline=offline), transport=LOCAL)
    message = str(caught.value)
    for part in (
        "model.pt",
        "300,000 bytes",
        nowhere.url,
        str(tmp_path / "weights" / "model.pt"),
        "autolabel label PATH experiment=offline",
    ):
        assert part in message
    assert "\n" not in message


def test_offline_asks_nobody(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="offline"):
        obtain(entry(site), Access(tmp_path, offline=True), transport=LOCAL)
    assert site.requests == []


def test_concurrent_callers_fetch_once(site: Site, tmp_path: Path) -> None:
    results: list[str] = []

    def call() -> None:
        results.append(obtain(entry(site), Access(tmp_path), transport=LOCAL).sha256)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [SHA256] * 4
    assert len(site.requests) == 1


ONE_OF_TWO = """
import sys
from pathlib import Path
from autolabel.weights.fetch import Transport
from autolabel.weights.obtain import obtain
from autolabel.weights.access import Access
from autolabel.weights.registry import Published
url, cache, size, sha256 = sys.argv[1:]
entry = Published("model", url, int(size), sha256, "MIT", "", (), True, "")
print(obtain(entry, Access(Path(cache)), transport=Transport(allow_http=True)).sha256)
"""


def test_two_processes_fetch_once(site: Site, tmp_path: Path) -> None:
    arguments = [f"{site.url}/model.pt", str(tmp_path), str(len(BODY)), SHA256]
    command = [sys.executable, "-c", ONE_OF_TWO, *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=30)[0].strip() for p in processes] == [SHA256] * 2
    assert len(site.requests) == 1


def test_a_file_without_a_published_hash_is_refused_until_someone_vouches(site: Site, tmp_path: Path) -> None:
    unpinned = entry(site, sha256=None, size=None)
    with pytest.raises(WeightsError, match="--sha256 HEX, or accept the first file"):
        obtain(unpinned, Access(tmp_path), transport=LOCAL)
    assert site.requests == []


def test_a_file_trusted_first_is_pinned_from_then_on(site: Site, tmp_path: Path) -> None:
    unpinned = entry(site, sha256=None, size=None)
    first = obtain(unpinned, Access(tmp_path, trust_first=True), transport=LOCAL)
    assert obtain(unpinned, Access(tmp_path), transport=LOCAL) == first
    first.path.write_bytes(BODY[::-1])
    with pytest.raises(WeightsCorrupt, match=SHA256):
        obtain(unpinned, Access(tmp_path, trust_first=True), transport=LOCAL)


def test_require_pinned_takes_a_stated_hash_and_not_a_trusted_one(site: Site, tmp_path: Path) -> None:
    unpinned, strict = entry(site, sha256=None, size=None), Access(tmp_path, require_pinned=True, trust_first=True)
    obtain(unpinned, Access(tmp_path, trust_first=True), transport=LOCAL)
    with pytest.raises(WeightsError, match="REQUIRE_PINNED"):
        obtain(unpinned, strict, transport=LOCAL)
    assert obtain(unpinned, strict, stated=SHA256, transport=LOCAL).sha256 == SHA256
    assert obtain(unpinned, strict, transport=LOCAL).sha256 == SHA256


def test_a_stated_hash_that_the_file_does_not_have_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt):
        obtain(entry(site, sha256=None, size=None), Access(tmp_path), stated="0" * 64, transport=LOCAL)
    with pytest.raises(WeightsError, match="pinned"):
        obtain(entry(site), Access(tmp_path), stated="0" * 64, transport=LOCAL)


def test_a_cache_that_cannot_be_written_says_which_variable_to_set(site: Site, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file where a folder should be")
    with pytest.raises(WeightsError, match="AUTOLABEL_CACHE"):
        obtain(entry(site), Access(tmp_path), transport=LOCAL)


def test_a_damaged_record_of_trust_is_named(tmp_path: Path) -> None:
    (tmp_path / "trusted.json").write_text("[1, 2]")
    with pytest.raises(WeightsError, match=r"trusted\.json"):
        cache.trusted(tmp_path, "model.pt")
