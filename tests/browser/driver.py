"""Chromium without a window, driven over the WebDriver protocol by the standard library alone."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "no Chromium with its driver (Debian: chromium, chromium-driver)"

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip


class Browser:
    """One page at a time."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, path: Path) -> None:
        """Load a file from disk; returns when it is loaded."""
        self._call("POST", "url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the script returns."""
        return self._call("POST", "execute/sync", {"script": script, "args": list(arguments)})

    def press(self, key: str) -> None:
        self._call("POST", "actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})  # fmt: skip

    def dialog(self) -> str | None:
        """The text of an open alert; None when there is none."""
        try:
            return str(self._call("GET", "alert/text"))
        except urllib.error.HTTPError:
            return None

    def console(self) -> list[str]:
        """Errors and warnings since the last call: also what the content policy refused."""
        entries = self._call("POST", "se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call: not those that are data, nor what the policy stopped."""
        entries = [
            json.loads(entry["message"])["message"]
            for entry in self._call("POST", "se/log", {"type": "performance"})
        ]
        stopped = {
            e["params"]["requestId"]
            for e in entries
            if e["method"] == "Network.loadingFailed" and e["params"].get("blockedReason") == "csp"
        }
        asked = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in asked if one["requestId"] not in stopped]
        return [url for url in urls if not url.startswith("data:")]

    def look(
        self, width: int, height: int = 900, *, dark: bool = False, scale: float = 1.0, mobile: bool = False
    ) -> None:
        """The size of the screen and the colours that it asks for."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.cdp("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        shot = self.cdp("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(shot["data"]))

    def cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._call("POST", "goog/cdp/execute", {"cmd": command, "params": parameters})

    def close(self) -> None:
        self._call("DELETE", "")

    def _call(self, method: str, what: str, body: dict[str, Any] | None = None) -> Any:
        return _call(method, f"{self._session}/{what}".rstrip("/"), body)


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh browser with a profile of its own."""
    assert DRIVER is not None
    with tempfile.TemporaryDirectory() as profile:
        log = Path(profile) / "driver.log"
        command = [DRIVER, "--port=0", f"--log-path={log}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            opened = _session(_port(process), profile)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "successfully on port" in line:
            return int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
    raise AssertionError("chromedriver ended before it listened")


def _session(port: int, profile: str) -> Browser:
    options = {"binary": CHROMIUM, "args": [*ARGUMENTS, f"--user-data-dir={profile}/profile"]}
    wanted = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        "unhandledPromptBehavior": "ignore",
    }
    base = f"http://127.0.0.1:{port}/session"
    made = _call("POST", base, {"capabilities": {"alwaysMatch": wanted}})
    return Browser(f"{base}/{made['sessionId']}")


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
        return json.loads(answer.read())["value"]


def seconds_to_open(opened: Browser, path: Path) -> float:
    """Until the page is loaded and painted once more."""
    start = time.perf_counter()
    opened.open(path)
    opened.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    return time.perf_counter() - start
