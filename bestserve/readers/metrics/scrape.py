"""What a server's `/metrics`, a dump of it, or a Prometheus answer says, sample by sample.

Only the address given is contacted: no redirect is followed, no proxy is asked, nothing is sent but
the request. What comes back is read up to a limit and within a time.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bestserve.errors import DataError, InputError, one_line, shown
from bestserve.host.extras import require

MOST_BYTES = 32 * 2**20
"""Of one answer or file [B]; a busy server with many labels writes a tenth of it."""
MOST_SCRAPES = 20_000
"""Points in time of one Prometheus answer."""
API = "/api/v1/"
"""Part of the path of a Prometheus query."""

Labels = tuple[tuple[str, str], ...]
Samples = dict[str, dict[Labels, float]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of one moment.

    at : when [s]; nan where the source does not say
    samples : name → labels → value
    """

    at: float
    samples: Samples


def is_url(source: str | Path) -> bool:
    """Whether a source is an address rather than a file."""
    return isinstance(source, str) and "://" in source[:12]


def metrics_url(text: str) -> str:
    """Return the address to ask: http or https, `/metrics` where no path is given.

    Raises InputError for other schemes, and for user names and passwords, which would end in logs.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InputError(f"{shown(text)} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{shown(text)}: give http://host:port/metrics, or a file")
    if parts.username or parts.password:
        raise InputError("an address with a user name or password is not asked; leave them out")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") or "/metrics", fragment=""))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to be sent elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Return no request: the answer is then an error."""


def fetched(url: str, timeout: float) -> Scrape | tuple[Scrape, ...]:
    """Ask an address once. Raises DataError naming it and what went wrong.

    timeout : of the connection and of each wait for data [s]; the whole answer has twice that
    """
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Accept": "text/plain, application/json"})
    started = time.monotonic()
    try:
        with opener.open(request, timeout=timeout) as answer:
            content = bytearray()
            while block := answer.read(65536):
                content += block
                if len(content) > MOST_BYTES:
                    raise DataError(f"{url}: more than {MOST_BYTES >> 20} MiB of metrics")
                if time.monotonic() - started > 2 * timeout:
                    raise DataError(f"{url}: still answering after {2 * timeout:g} s")
    except urllib.error.HTTPError as error:
        moved = f" to {error.headers.get('Location')}" if 300 <= error.code < 400 else ""
        raise DataError(f"{url}: answers {error.code} {error.reason}{moved}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}: no answer: {one_line(str(reason), 120)}") from None
    return parsed(bytes(content), url, time.time())


def read_file(path: Path) -> Scrape | tuple[Scrape, ...]:
    """Read a dump of `/metrics`, or a Prometheus answer in JSON. Raises DataError."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise DataError(f"{path}: more than {MOST_BYTES >> 20} MiB of metrics")
    return parsed(content, str(path), math.nan)


def parsed(content: bytes, where: str, at: float) -> Scrape | tuple[Scrape, ...]:
    """Return one scrape of a text, several of a Prometheus answer over a range."""
    text = content.decode("utf-8", errors="replace")
    if text.lstrip()[:1] in ("{", "["):
        return _answer(text, where)
    return Scrape(at, _exposition(text, where))


def _exposition(text: str, where: str) -> Samples:
    require("a server's text format", "prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    out: Samples = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                out.setdefault(sample.name, {})[labels] = float(sample.value)
    except (ValueError, KeyError, IndexError) as error:
        reason = one_line(str(error), 120)
        raise DataError(f"{where}: no metrics in Prometheus' text format: {reason}") from None
    if not out:
        raise DataError(f"{where}: no metric in it; is it a server's /metrics?")
    return out


def _answer(text: str, where: str) -> tuple[Scrape, ...]:
    """Return the scrapes of a Prometheus HTTP answer (a vector or a matrix), or a list of them."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON: {one_line(str(error), 80)}") from None
    moments: dict[float, Samples] = {}
    for answer in found if isinstance(found, list) else [found]:
        for series in _series(answer, where):
            metric = series.get("metric")
            if not isinstance(metric, Mapping) or "__name__" not in metric:
                raise DataError(f"{where}: a series without a name: query metrics, not rates")
            name = str(metric["__name__"])
            labels = tuple(sorted((str(k), str(v)) for k, v in metric.items() if k != "__name__"))
            for at, value in _points(series, where):
                moments.setdefault(at, {}).setdefault(name, {})[labels] = value
                if len(moments) > MOST_SCRAPES:
                    raise DataError(f"{where}: more than {MOST_SCRAPES:,} points in time")
    if not moments:
        raise DataError(f"{where}: an answer of Prometheus without any series")
    return tuple(Scrape(at, moments[at]) for at in sorted(moments))


def _series(answer: Any, where: str) -> Iterable[Mapping[str, Any]]:
    if not isinstance(answer, Mapping) or answer.get("status") != "success":
        said = shown(answer.get("error")) if isinstance(answer, Mapping) else "no object"
        raise DataError(f"{where}: no answer of Prometheus' HTTP interface: {said}")
    data = answer.get("data")
    result = data.get("result") if isinstance(data, Mapping) else None
    if not isinstance(result, list) or not all(isinstance(s, Mapping) for s in result):
        raise DataError(f"{where}: data.result is {shown(result)}: expected series")
    return result


def _points(series: Mapping[str, Any], where: str) -> Iterable[tuple[float, float]]:
    pairs = series.get("values") or ([series["value"]] if "value" in series else [])
    for pair in pairs if isinstance(pairs, list) else ():
        try:
            at, value = float(pair[0]), float(pair[1])
        except (TypeError, ValueError, IndexError, KeyError):
            raise DataError(f"{where}: {shown(pair)} is no point of a series") from None
        yield at, value
