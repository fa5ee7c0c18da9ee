"""What keeps strangers out of a page that runs on somebody's machine.

A server on the loopback is reached by every page that its user's browser shows. So requests are
taken only under names that no stranger can point here (rebinding), from pages of its own, within
bounds; and what it sends runs no script but its own.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LONGEST_QUERY = 32_000
"""Bytes of a query."""
LARGEST_BODY = 64 * 2**20
"""Bytes of an upload: a log of some hundred thousand requests."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {frames}"
)
NOTEBOOKS = "'self' http://localhost:* http://127.0.0.1:*"


def headers(embedded: bool) -> list[tuple[bytes, bytes]]:
    """Return what every answer says; embedded : whether a notebook may show the page in a frame."""
    policy = POLICY.format(frames=NOTEBOOKS if embedded else "'none'")
    found = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
    return [(name.encode(), value.encode()) for name, value in found.items()]


def known_names(host: str) -> frozenset[str]:
    """Return the names under which a server bound to `host` answers; addresses go anyway."""
    own = {"localhost", host.lower()}
    if not is_local(host):
        own |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(own)


def is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(header: str) -> str:
    """Return the name in a Host header, without its port; "" if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a name is an address: nobody's name server can point one here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuse what comes from elsewhere or is too large, and send the policy with every answer."""

    def __init__(self, app: App, names: Collection[str], embedded: bool = False) -> None:
        self.app, self.names = app, names
        self.headers = headers(embedded)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in self.headers if name not in own),
                ]
            await send(message)

        status, reason = self.refusal(scope)
        if status:
            await _say(guarded, status, reason)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LARGEST_BODY:
                return {"type": "http.disconnect"}
            return message

        await self.app(scope, bounded, guarded)

    def refusal(self, scope: Message) -> tuple[int, str]:
        """Return status and sentence if a request is not taken; 0 if it is."""
        found = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        name = host_of(found.get("host", ""))
        if not (is_address(name) or name in self.names):
            return 421, "this page answers under its own address only"
        origin = found.get("origin")
        if origin is not None and urlsplit(origin).netloc != found["host"]:
            return 403, "this page answers its own pages only"
        cross = found.get("sec-fetch-site") == "cross-site"
        if cross and found.get("sec-fetch-mode") != "navigate":
            return 403, "this page answers its own pages only"
        if len(scope["query_string"]) > LONGEST_QUERY:
            return 414, f"a query of more than {LONGEST_QUERY} bytes; take a problem file"
        length = found.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return 413, f"more than {LARGEST_BODY >> 20} MiB; cut it into parts"
        return 0, ""


async def _say(send: Send, status: int, reason: str) -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind]})
    await send({"type": "http.response.body", "body": reason.encode()})
