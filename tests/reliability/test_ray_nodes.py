"""engine=ray on several nodes of one machine: weights come once to each of them."""

import hashlib
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from omegaconf import OmegaConf

from tests.fakes import album
from tests.reliability.test_ray_faults import A_UNIT, PICTURES, Bench, gone, with_node, workers

pytest.importorskip("ray", reason="Ray is not installed: pip install autolabel-sam2[ray]")
pytestmark = pytest.mark.slow

WEIGHTS = hashlib.shake_256(b"weights").digest(300_000)


@pytest.fixture
def site():
    """A server of one file, and who asked for it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(WEIGHTS)))
            self.end_headers()
            self.wfile.write(WEIGHTS)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/tiny.pt", asked
    server.shutdown()
    server.server_close()


def test_weights_are_fetched_once_on_each_node(site, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    url, asked = site
    bench = Bench(tmp_path)
    node = {
        "_target_": "tests.reliability.ray_models.FetchedDetector",
        "url": url,
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "seen": str(tmp_path / "seen"),
    }
    OmegaConf.save(OmegaConf.create(node), tmp_path / "configs" / "detect" / "fetched.yaml")
    (tmp_path / "seen").mkdir()
    monkeypatch.setenv("AUTOLABEL_OFFLINE", "0")
    cluster = Cluster()
    try:
        for name in ("first", "second"):
            monkeypatch.setenv("AUTOLABEL_CACHE", str(tmp_path / name))
            with_node(cluster, include_dashboard=False, num_cpus=2, object_store_memory=100 << 20)
        monkeypatch.setenv("AUTOLABEL_CACHE", str(tmp_path / "driver"))
        process = bench.ray(
            "run",
            "detect=fetched",
            f"engine.address={cluster.address}",
            "engine.min_actors=4",
            "engine.max_actors=4",
        )
        bench.ended("run", process, 0)
    finally:
        cluster.shutdown()
    caches = [path.name.rpartition("-")[0] for path in (tmp_path / "seen").iterdir()]
    assert min(caches.count("first"), caches.count("second")) >= 2, caches
    assert len(asked) == 2
    assert not (tmp_path / "driver" / "weights").exists()


def test_a_node_that_joins_later_gets_an_actor(tmp_path):
    from ray.cluster_utils import Cluster

    bench = Bench(tmp_path)
    album(tmp_path / "in", 400)
    small = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster()
    try:
        with_node(cluster, include_dashboard=False, **small)
        process = bench.ray("run", f"engine.address={cluster.address}", "detect.delay_s=0.3", "export=[]")
        bench.until("run", 3, process)
        assert len(workers(os.getpid())) == 1
        with_node(cluster, **small)
        while len(workers(os.getpid())) < 2:
            assert process.poll() is None, "the run ended with one actor"
            time.sleep(0.5)
        process.terminate()
        bench.ended("run", process, 130)
    finally:
        cluster.shutdown()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves its log files to the collector
def test_through_the_client_from_outside_a_run_is_killed_and_continued(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    pytest.importorskip("grpc", reason="the Ray client is not installed: pip install autolabel-sam2[ray]")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # where somebody has a token, Ray asks for it
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else whatever else runs here goes first
    bench = Bench(tmp_path)
    assert bench.inline("expected") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster()
    try:
        with_node(
            cluster,
            include_dashboard=False,
            num_cpus=2,
            object_store_memory=100 << 20,
            ray_client_server_port=port,
        )
        address = f"engine.address=ray://127.0.0.1:{port}"
        process = bench.ray("run", address, "detect.delay_s=0.3")
        bench.until("run", 2, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert 0 < bench.units("run") < PICTURES // A_UNIT
        bench.ended("run", bench.ray("run", address, "detect.delay_s=0.3"), 0)
        assert bench.content("run") == bench.content("expected")
        assert gone(workers(os.getpid()), 60)
    finally:
        cluster.shutdown()
