"""Headless Chromium, which the tests drive over the DevTools protocol."""

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import websocket
from PIL import Image

from support import leave_out

CHROMIUM_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-port=0", "--remote-allow-origins=*"),
)
START_SECONDS = 60


class Tab:
    """A page of headless Chromium."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, timeout=60)
        self.events: list[dict] = []
        self.n_calls = 0

    def call(self, method: str, **parameters):
        self.n_calls += 1
        self.socket.send(json.dumps({"id": self.n_calls, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.n_calls:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def wait_for(self, method: str) -> None:
        while not any(event["method"] == method for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path, *, width: int, scheme: str = "light") -> None:
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")
        # `problems` reports a picture that cannot be decoded.
        self.evaluate("Promise.allSettled([...document.images].map(image => image.decode())).then(() => 0)")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of the elements in sight."""
        elements = f"[...document.querySelectorAll({selector!r})].filter(e => e.checkVisibility())"
        return self.evaluate(f"{elements}.map(e => e.textContent)")

    def choose(self, id: str, value: object) -> None:
        """Set a select or an input, as a reader does."""
        event = "new Event(e.tagName === 'SELECT' ? 'change' : 'input')"
        self.evaluate(
            f"(e => {{ e.value = {str(value)!r}; e.dispatchEvent({event}) }})(document.getElementById({id!r}))"
        )

    def click(self, selector: str) -> None:
        """Click on an element, as a reader does."""
        expression = f"document.querySelector({selector!r}).click()"
        self.call("Runtime.evaluate", expression=expression, userGesture=True)

    def download(self, folder: Path, selector: str) -> Path:
        """Click on an element, and return the file that the page saves."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.click(selector)
        while not any(folder.iterdir()) or any(folder.glob("*.crdownload")):
            time.sleep(0.02)
        (path,) = folder.iterdir()
        return path

    def picture(self, selector: str) -> np.ndarray:
        """Return the pixels of an element when everything is drawn: red, green, blue and alpha."""
        box = self.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {"
            f"const {{x, y, width, height}} = document.querySelector({selector!r}).getBoundingClientRect();"
            "done({x: x + scrollX, y: y + scrollY, width, height})})))"
        )
        result = self.call("Page.captureScreenshot", clip={**box, "scale": 1}, captureBeyondViewport=True)
        with Image.open(io.BytesIO(base64.b64decode(result["data"]))) as image:
            return np.asarray(image.convert("RGBA"), dtype=int)

    def problems(self, width: int) -> list[str]:
        """List the errors, requests, missing pictures and sideways scrolling of the page."""
        problems = []
        for event in self.events:
            if event["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                problems.append(f"console: {json.dumps(event['params'])[:300]}")
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    problems.append(f"network: {url}")
        missing = self.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.alt)")
        problems += [f"picture: {alt}" for alt in missing]
        # Not compared with innerWidth, which on a phone grows with content that is too wide.
        widest = self.evaluate("document.documentElement.scrollWidth")
        if widest > width:
            problems.append(f"scrolls sideways: {widest} > {width}")
        return problems


@contextmanager
def open_chromium(profile_path: Path) -> Iterator[Tab]:
    """Start Chromium with a new profile, and yield its only tab. The test is skipped if no Chromium is installed."""
    program = next(filter(None, map(shutil.which, CHROMIUM_PROGRAMS)), None)
    if program is None:
        leave_out("needs Chromium")
    log_path, port_path = profile_path.with_name("chromium.log"), profile_path / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    with log_path.open("w") as log:
        command = [program, *SWITCHES, f"--user-data-dir={profile_path}", "about:blank"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not (port_path.exists() and port_path.read_text().count("\n")):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Chromium did not start: {log_path.read_text()[-2000:]}")
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port_path.read_text().split()[0]}/json") as answer:
            (address,) = [page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"]
        tab = Tab(address)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.call(f"{domain}.enable")
        tab.call("Page.bringToFront")  # only a page with the focus may copy text
        yield tab
        tab.socket.close()
    finally:
        process.kill()
        process.wait()
