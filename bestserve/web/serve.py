"""Starting the page: from the shell, or beside a notebook."""

from __future__ import annotations

import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from bestserve.errors import InputError
from bestserve.host.extras import require
from bestserve.specs.problem import Problem

if TYPE_CHECKING:
    import uvicorn

PORT = 8265
"""Where the page is, if nothing else is there."""
NEEDED = ("starlette", "uvicorn", "jinja2", "python_multipart")
STREAMS = 256
"""Connections at once; more are refused with 503."""
HEIGHT = 900
"""Of the frame in a notebook [px]."""


@dataclass
class Page:
    """A running page: `url`, and `stop()` to end it; a notebook shows it in a frame."""

    url: str
    server: uvicorn.Server = field(repr=False)
    thread: threading.Thread = field(repr=False)

    def stop(self) -> None:
        """End the server and its workers."""
        self.server.should_exit = True
        self.thread.join(timeout=10)

    def wait(self) -> None:
        """Stay until the page is stopped."""
        self.thread.join()

    def _repr_html_(self) -> str:
        url = escape(self.url, quote=True)
        size = f'width="100%" height="{HEIGHT}"'
        return f'<iframe title="bestserve" {size} src="{url}"></iframe>'


def ui(
    problem: Problem | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool | None = None,
) -> Page:
    """Start the local page that answers while a slider moves, and return it.

    Parameters
    ----------
    problem : what the page asks at first; everything can be changed there
    host : address to bind to; default: this machine alone
    port : default 8265, or a free one where that is taken
    browser : open a browser; default: unless a notebook shows the page itself

    Raises InputError where the port is taken, MissingExtraError without the packages.
    """
    require("the page", *NEEDED)
    from bestserve.web.copies import to_flags
    from bestserve.web.query import query_of

    query = "" if problem is None else query_of(*to_flags(problem))
    notebook = in_notebook()
    server, bound = prepared(host, port, embedded=notebook)
    url = address(host, bound, query)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    _until(lambda: server.started or not thread.is_alive())
    if not notebook if browser is None else browser:
        webbrowser.open(url)
    return Page(url, server, thread)


def prepared(
    host: str, port: int | None, embedded: bool = False
) -> tuple[uvicorn.Server, socket.socket]:
    """Return a server that is ready to run, and the socket that it takes."""
    import uvicorn

    from bestserve.web.app import Settings, build

    bound = listening(host, port)
    config = uvicorn.Config(
        build(Settings(host=host, embedded=embedded)),
        log_level="warning",
        server_header=False,
        limit_concurrency=STREAMS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config), bound


def listening(host: str, port: int | None) -> socket.socket:
    """Return a listening socket; without a port, the usual one or a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (PORT, 0) if port is None else (port,):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, wanted))
            bound.listen(128)
        except (OSError, OverflowError) as error:
            bound.close()
            reason = getattr(error, "strerror", None) or str(error)
            said = f"port {wanted} of {host[:80]}: {reason}; give another --port"
            failure = InputError(said)
        else:
            return bound
    raise failure


def address(host: str, bound: socket.socket, query: str = "") -> str:
    """Return the page's URL."""
    name = f"[{host}]" if ":" in host else host
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else name
    return f"http://{shown}:{bound.getsockname()[1]}/{f'?{query}' if query else ''}"


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this, which shows the page in a frame."""
    import sys

    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
