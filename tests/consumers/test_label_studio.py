"""A Label Studio of this machine: its server imports the tasks, shows the pictures, and exports what it took."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from autolabel.export.label_studio import LabelStudioExporter
from tests.consumers.consumer import (
    environment,
    exact,
    image_of,
    iou_with_the_red,
    ious,
    python_of,
    read_with,
    subject,
)
from tests.unit.test_export_label_studio import SETTINGS

pytestmark = pytest.mark.slow
TOKEN = "0123456789abcdef0123456789abcdef01234567"
PATIENCE_S = 900
"""The first start makes a database: half a minute, or many minutes where the processor is busy."""


@dataclass
class Studio:
    """`document_root` is the folder below which the server may read pictures."""

    address: str
    document_root: Path


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    python, home = python_of("label_studio"), tmp_path_factory.mktemp("studio")
    document_root = home / "served"
    document_root.mkdir()
    address = f"http://127.0.0.1:{(port := free_port())}"
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(home / "data"),
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(document_root),
        "COLLECT_ANALYTICS": "False",
        "LATEST_VERSION_CHECK": "False",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    person = ["--username", "a@example.com", "--password", "only-for-tests", "--user-token", TOKEN]
    start = "from label_studio.server import main; main()"
    command = [python, "-c", start, "start", "--no-browser", "--port", str(port), *person]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--internal-host", "127.0.0.1", "--enable-legacy-api-token"],
            env=environment(home / "home", **settings),
            cwd=home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(f"{address}/health", process, home / "log")
            yield Studio(address, document_root)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(url, process, log):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(1)
    pytest.fail(f"Label Studio does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def test_every_brush_comes_back_and_lies_on_its_picture(studio, tmp_path):
    run = subject(studio.document_root)
    LabelStudioExporter(**{**SETTINGS, "image_root": None}).export(run, tmp_path / "tasks")
    pictures = studio.document_root / "photos"
    images = read_with("label_studio", tmp_path, studio.address, TOKEN, tmp_path / "tasks", pictures)
    assert ious(run, images) == exact(run)
    assert all(iou_with_the_red(image_of(images, f"turned{o}.jpg")) == 1.0 for o in range(1, 9))


def test_every_polygon_comes_back_from_the_server_s_coco_where_no_picture_is_turned(studio, tmp_path):
    run, out = subject(tmp_path), studio.document_root / "upright"
    root = "/data/local-files/?d=upright/"
    settings = {**SETTINGS, "shape": "polygon", "images": "upright", "image_root": root}
    LabelStudioExporter(**settings).export(run, out)
    images = read_with("label_studio", tmp_path, studio.address, TOKEN, out, out / "images")
    assert ious(run, images) == exact(run)
