"""`bs.read_metrics`: looks at a server for a while, or reads what was kept of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bestserve.errors import InputError
from bestserve.readers.metrics.live import LiveMetrics, live_metrics
from bestserve.readers.metrics.scrape import API, Scrape, fetched, is_url, metrics_url, read_file

WINDOW = 30.0
"""How long a server is looked at [s]."""
LONGEST = 3600.0
TIMEOUT = 5.0
EVERY = 1.0
"""Between two looks [s]."""


def read_metrics(
    *sources: str | Path,
    window: float | None = None,
    timeout: float = TIMEOUT,
    sleep: Callable[[float], None] = time.sleep,
) -> LiveMetrics:
    """Return what a running server does: rates, lengths, queues, cache, latencies.

    Parameters
    ----------
    sources : the address of a server's `/metrics` (looked at every second for `window`), of a
        Prometheus query or query range (asked once), or files: dumps of `/metrics` in order, or
        such an answer in JSON
    window : how long to look [s], 30 by default; with dumps, the time between the first and last
    timeout : of each request [s]
    sleep : waits between two looks

    Reads only; contacts nothing but the address. Raises InputError for what cannot be asked,
    DataError for what cannot be read.
    """
    if not sources:
        raise InputError("no address or file given; write http://host:8000/metrics")
    if window is not None and not 0 < window <= LONGEST:
        raise InputError(f"window = {window:g} s must be above 0 and at most {LONGEST:g}")
    if not 0 < timeout <= LONGEST:
        raise InputError(f"timeout = {timeout:g} s must be above 0 and at most {LONGEST:g}")
    if any(is_url(s) for s in sources):
        if len(sources) > 1:
            raise InputError("one address at a time; several sources are dumps of one server")
        return _watched(metrics_url(str(sources[0])), window or WINDOW, timeout, sleep)
    scrapes: list[Scrape] = []
    for source in sources:
        scrapes += _listed(read_file(Path(source)))
    return live_metrics(scrapes, window)


def _watched(
    url: str, window: float, timeout: float, sleep: Callable[[float], None]
) -> LiveMetrics:
    if API in urlsplit(url).path:
        return live_metrics(_listed(fetched(url, timeout)))
    scrapes = [*_listed(fetched(url, timeout))]
    began = time.monotonic()
    while time.monotonic() - began < window:
        sleep(min(EVERY, window))
        scrapes += _listed(fetched(url, timeout))
    return live_metrics(scrapes)


def _listed(found: Scrape | tuple[Scrape, ...]) -> Sequence[Scrape]:
    return [found] if isinstance(found, Scrape) else list(found)
