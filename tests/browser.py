"""A headless Chromium, spoken to over a pipe in its own protocol: no driver, no network, nothing to install besides."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Seconds: a busy machine starts a browser slowly.
PATIENCE = 90


def find():
    """Returns the path of a browser, `None` where there is none; `CHROMIUM` names one elsewhere."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in one browser; `complaints` holds all that its console has said, and requests that left the file."""

    def __init__(self, profile):
        receive, child_send = os.pipe()
        child_receive, send = os.pipe()

        def hand_over():
            # The protocol reads from 3 and writes to 4. Neither may be closed by the other's move.
            first, second = os.dup(child_receive), os.dup(child_send)
            os.dup2(first, 3)
            os.dup2(second, 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        self._process = subprocess.Popen(
            [
                find(),
                *options,
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "--no-first-run",
                "about:blank",
            ],
            preexec_fn=hand_over,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_send)
        os.close(child_receive)
        self._receive, self._send, self._held, self._number = receive, send, b"", 0
        self._events, self.complaints, self._session = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def call(self, method, **parameters):
        """Sends a command and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def _next(self):
        limit = time.monotonic() + PATIENCE
        while b"\0" not in self._held:
            assert time.monotonic() < limit, "The browser does not answer."
            part = os.read(self._receive, 1 << 16)
            assert part, "The browser has gone."
            self._held += part
        first, _, self._held = self._held.partition(b"\0")
        message = json.loads(first)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, parameters):
        if method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(parameters)
        elif method == "Network.requestWillBeSent":
            if not parameters["request"]["url"].startswith(("file:", "data:", "about:")):
                self.complaints.append(parameters["request"]["url"])
        elif method:
            self._events.append(method)

    def open(self, path, width, height, dark=False):
        """Opens a file at a width and height in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, script):
        """Runs a script and returns what it gives."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *keys):
        """Presses keys, one after the other."""
        for key in keys:
            text = {"Enter": "\r"}.get(key, "")
            code = {"Enter": 13, "Tab": 9, "ArrowRight": 39}.get(key, 0)
            for kind in ("keyDown", "keyUp"):
                self.call(
                    "Input.dispatchKeyEvent",
                    type=kind, key=key, text=text if kind == "keyDown" else "", windowsVirtualKeyCode=code,
                )  # fmt: skip

    def hover(self, x, y):
        """Moves the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path, whole=False):
        """Saves a picture of what is seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """Ends the browser that this object has started."""
        self._session = None
        try:
            self.call("Browser.close")
        except (AssertionError, OSError):
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._receive)
        os.close(self._send)
