"""`bestserve ui`."""

from __future__ import annotations

import threading
import webbrowser
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bestserve.cli.flags import whole
from bestserve.cli.options import ProblemOptions
from bestserve.cli.talk import talk
from bestserve.host.extras import require

Port = Parameter(converter=whole, validator=Number(gte=0, lte=65535))


def ui(
    options: ProblemOptions | None = None,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int | None, Port] = None,
    browser: bool = True,
) -> int:
    """Open a local page that answers while you move a slider; its URL is the problem.

    Parameters
    ----------
    options
        what the page asks at first
    host
        address to bind to; others than this machine's own let everybody ask who reaches it
    port
        default: 8265, or a free one where that is taken
    browser
        open it in a browser
    """
    from bestserve.web.serve import NEEDED, address, prepared

    require("the page", *NEEDED)
    from bestserve.web.copies import to_flags
    from bestserve.web.query import query_of
    from bestserve.web.safety import is_local

    given = options or ProblemOptions()
    query = ""
    if given != ProblemOptions():
        query = query_of(*to_flags(given.build()))
    server, bound = prepared(host, port)
    url = address(host, bound, query)
    talk(f"{url}\nends with Ctrl-C")
    if not is_local(host):
        talk(f"warning: {host} is reached from outside; everybody there can ask")
    if browser:
        threading.Timer(0.3, webbrowser.open, [url]).start()
    server.run(sockets=[bound])
    return 0
