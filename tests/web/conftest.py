"""One running page for all tests, asked without a browser."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from types import ModuleType
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from bestserve.web.app import Settings, build

QUESTION = {
    "model": "meta-llama/Llama-3.1-8B",
    "hardware": "h100-sxm",
    "gpus": "1",
    "input-len": "lognormal:500,1",
    "output-len": "100",
    "goodput": "ttft:500 tpot:30",
    "max-num-batched-tokens": "4096",
}


@pytest.fixture(scope="session")
def question() -> dict[str, str]:
    """A question whose ranking takes a moment."""
    return dict(QUESTION)


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    """The page with its workers, as pages on this machine reach it."""
    with TestClient(build(Settings(workers=1)), base_url="http://127.0.0.1:8265") as found:
        yield found


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


class Served:
    """`bestserve ui` as a process of its own, which can be ended and started again."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.command = [
            sys.executable,
            "-m",
            "bestserve",
            "ui",
            "--no-browser",
            "--port",
            str(port),
        ]
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, "the page does not start"
                time.sleep(0.1)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def page(self, **asked: str) -> str:
        """Return the address of a question."""
        return f"{self.url}/?{urlencode(asked)}"


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """The page as users start it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Served(port)
    yield found
    found.kill()


@pytest.fixture(scope="session")
def browser(script: Callable[[str], ModuleType], tmp_path_factory) -> Iterator[object]:
    """A Chromium; tests that need it say so and skip."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs a Chromium to open the page in (apt-get install chromium)")
    pytest.importorskip("websockets", reason="needs websockets to speak to Chromium")
    found = script("tests/web/chromium.py").Browser(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()
