"""What must be set before anything imports a model library."""

import atexit
import os
import shutil
import tempfile

import hypothesis
import pytest

from autolabel.weights.quiet import quiet_environment

if "YOLO_CONFIG_DIR" not in os.environ:  # the processes of xdist have that of the first one
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="autolabel-ultralytics-")
    atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)
os.environ["AUTOLABEL_OFFLINE"] = "1"
quiet_environment()
hypothesis.settings.register_profile("untimed", deadline=None)  # no test depends on how busy a machine is
hypothesis.settings.load_profile("untimed")

from tests.remote import bucket, leaking  # noqa: E402, F401 - fixtures, after the environment is set


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test said may hold a name that is no text (`caf\\xe9`); between processes of xdist only text travels."""
    report = yield
    report.sections = [
        (title, said.encode("utf-8", "backslashreplace").decode()) for title, said in report.sections
    ]
    return report


@pytest.fixture(scope="module")
def one_thread():
    """Torch with one thread, for figures that are to be the same to the last digit; with more of them those change."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inference():
    """Torch without gradients."""
    import torch

    with torch.inference_mode():
        yield
