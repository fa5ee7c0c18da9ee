"""A real Chromium, spoken to over its DevTools protocol: just what the tests of the page need."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = "document.getElementById('status').textContent"
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39, "ArrowLeft": 37, "Home": 36}


class Browser:
    """A Chromium without a window."""

    def __init__(self, path: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [
                path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-extensions",
                "--disable-background-networking", "--no-first-run", "--remote-debugging-port=0",
                "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "DevTools listening on ws://" in line:
                self.port = int(line.rpartition(":")[2].partition("/")[0])
                break

    def open(self, url: str, width: int = 1280, height: int = 900, **media: str) -> Tab:
        """Open a page in a tab of its own; media : of CSS, e.g. `prefers_color_scheme="dark"`."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT"
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            tab = Tab(json.load(answer)["webSocketDebuggerUrl"])
        tab.size(width, height)
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        tab.send("Emulation.setEmulatedMedia", features=features)
        tab.go(url)
        return tab

    def close(self) -> None:
        """End the browser."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Tab:
    """One page: what it says, what is typed into it, and what goes wrong in it."""

    def __init__(self, url: str) -> None:
        from websockets.sync.client import connect

        self.stack = contextlib.ExitStack()
        self.socket = self.stack.enter_context(connect(url, max_size=None, open_timeout=30))
        self.number = 0
        self.problems: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        """Keep what went wrong."""
        told = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                detail = told["exceptionDetails"]
                self.problems.append(detail.get("exception", {}).get("description", str(detail)))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning"):
                self.problems.append(str([a.get("value", a) for a in told["args"]]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.problems.append(told["entry"]["text"] + " " + told["entry"].get("url", ""))

    def go(self, url: str) -> None:
        """Open an address."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """Return what an expression is worth; a promise is waited for."""
        how = {"returnByValue": True, "awaitPromise": True}
        found = self.send("Runtime.evaluate", expression=code, **how)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({code})"):
            assert time.monotonic() < end, f"not within {seconds} s: {code}"
            time.sleep(0.05)

    def answered(self, seconds: float = 90.0) -> None:
        """Wait until the page has answered what it was asked last."""
        self.until(f"{STATUS}.startsWith('answered, ')", seconds)

    def first(self, seconds: float = 60.0) -> None:
        """Wait until formulas, at least, have answered."""
        self.until(f"{STATUS}.startsWith('answered')", seconds)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key: Tab, Enter, an arrow."""
        code = KEYS[key]
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers,
                windowsVirtualKeyCode=code, nativeVirtualKeyCode=code, **more,
            )  # fmt: skip

    def type(self, selector: str, text: str) -> None:
        """Put text into a field as a person does: focus, select all, insert, leave."""
        self.run(f"document.querySelector({selector!r}).focus()")
        self.run(f"document.querySelector({selector!r}).select()")
        self.send("Input.insertText", text=text)

    def size(self, width: int, height: int) -> None:
        """Set the size of the window [px]."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip

    def picture(self, path: Path, whole: bool = True) -> Path:
        """Save what the page shows as PNG."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def close(self) -> None:
        """Close the connection; the tab goes with its browser."""
        self.stack.close()


Opened = Callable[..., Tab]
