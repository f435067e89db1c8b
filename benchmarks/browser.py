"""A headless Chromium that is driven over pipes: pages opened, keys pressed, what it asked for and complained of noted."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Browser:
    """One tab; messages of the DevTools protocol go through two pipes, each ended by a zero byte."""

    def __init__(self, ask: int, answer: int) -> None:
        self.ask, self.answer, self.count, self.rest = ask, answer, 0, b""
        self.events: list[dict[str, Any]] = []
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Performance.enable", timeDomain="threadTicks")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; events that come before it are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.ask, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.count:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = os.read(self.answer, 2**20)
            if not data:
                raise RuntimeError("the browser has gone")
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def evaluate(self, script: str) -> Any:
        """The value of an expression; RuntimeError where it throws."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def open(self, path: Path, width: int, height: int, dark: bool = False, phone: bool = False) -> float:
        """Opens a file; seconds until it was drawn, by the page's own clock."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url=path.resolve().as_uri())
        while (
            self.evaluate("document.readyState") != "complete"
            or self.evaluate("location.href") == "about:blank"
        ):
            time.sleep(0.02)
        drawn = (
            "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()), 0)))"
        )
        return float(self.evaluate(drawn)) / 1000

    def computed(self) -> float:
        """Seconds of a processor that the page's main thread has taken since it was opened."""
        found = self.call("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in found if m["name"] == "TaskDuration"))

    def press(self, key: str, code: str = "") -> None:
        """A key goes down and up."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=code or key,
                **(text if kind == "keyDown" else {}),
            )

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        self.evaluate("1")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(str(params["args"]))
            elif event.get("method") == "Log.entryAdded":
                found.append(params["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but its own."""
        sent = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        own = self.evaluate("location.href").split("#")[0]
        return [url for url in sent if url.split("#")[0] != own]

    def picture(self, path: Path, whole: bool = True) -> Path:
        """A screenshot, PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        found = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            **({"clip": clip} if whole else {}),
        )
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@contextmanager
def chromium(program: str) -> Iterator[Browser]:
    """A browser without a window, a profile of its own, and no network."""
    ask_read, ask_write = os.pipe()
    answer_read, answer_write = os.pipe()

    def place() -> None:
        os.dup2(ask_read, 103), os.dup2(answer_write, 104)
        os.dup2(103, 3), os.dup2(104, 4)

    with tempfile.TemporaryDirectory() as home:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
        options += ["--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={home}"]
        process = subprocess.Popen(
            [program, *options],
            preexec_fn=place,
            close_fds=False,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Browser(ask_write, answer_read)
        finally:
            process.kill()
            process.wait()
            for handle in (ask_read, ask_write, answer_read, answer_write):
                os.close(handle)
            time.sleep(0.3)
