"""What a running server did while it was looked at, under our names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bestserve.errors import DataError
from bestserve.readers.metrics.histogram import Histogram
from bestserve.readers.metrics.names import MODEL_LABELS, SERVERS, Names
from bestserve.readers.metrics.scrape import Scrape

FEWEST_COUNTS = 20
"""Intervals, and arrivals, from which the variability of arrivals is said at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveMetrics:
    """Figures of a server over a time; None where it does not say.

    server : vLLM, SGLang, TensorRT-LLM or Dynamo; model : as the server calls it
    seconds : how long it was looked at, or has run where one look is all there is [s]
    finished : requests that ended; request_rate : arrivals [1/s]
    arrival_scv : squared coefficient of variation of the gaps between arrivals, by the dispersion
        of counts [1]
    running, waiting : requests, averaged over the looks; kv_usage : share of the cache in use [1]
    prefix_cache_hit : share of the prompt tokens [1]; preemptions : [1/s]
    acceptance : output tokens of a step of speculative decoding [1]
    input_len, output_len : tokens of requests; ttft, tpot, itl, e2el : latencies [s]
    """

    server: str
    model: str | None = None
    seconds: float | None = None
    finished: float | None = None
    request_rate: float | None = None
    arrival_scv: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    prefix_cache_hit: float | None = None
    preemptions: float | None = None
    acceptance: float | None = None
    input_len: Histogram | None = None
    output_len: Histogram | None = None
    ttft: Histogram | None = None
    tpot: Histogram | None = None
    itl: Histogram | None = None
    e2el: Histogram | None = None
    notes: tuple[str, ...] = field(default=())


def live_metrics(scrapes: Sequence[Scrape], seconds: float | None = None) -> LiveMetrics:
    """Return what happened between the first scrape and the last.

    seconds : how long that was, where the scrapes do not say
    Of a single one: since the server started. Raises DataError if no known server wrote them.
    """
    server, names = _server(scrapes[-1])
    look = _Look(scrapes, names)
    if math.isfinite(scrapes[-1].at - scrapes[0].at) and len(scrapes) > 1:
        seconds = scrapes[-1].at - scrapes[0].at
    alone = len(scrapes) == 1
    if alone and seconds is None:
        seconds = look.life()
    finished = look.counter("finished")
    arrived = None if finished is None else finished + look.growth("running", "waiting")
    rate = arrived / seconds if arrived is not None and seconds else None
    drafts, accepted = look.counter("drafts"), look.counter("accepted")
    preempted = look.counter("preemptions")
    notes = []
    if alone and seconds:
        notes.append(f"one look: averages over {seconds:,.0f} s")
    elif alone:
        notes.append("one look without a start time: no rates; look twice, or give --window")
    return LiveMetrics(
        server=server,
        model=look.model(),
        seconds=seconds,
        finished=finished,
        request_rate=rate,
        arrival_scv=look.arrival_scv(),
        running=look.gauge("running"),
        waiting=look.gauge("waiting") if "waiting" in names else look.gauge("queued"),
        kv_usage=look.gauge("kv_usage", mean=True),
        prefix_cache_hit=look.hit_share(),
        preemptions=preempted / seconds if preempted is not None and seconds else None,
        acceptance=1 + accepted / drafts
        if drafts and accepted is not None
        else look.gauge("accept_length", mean=True) or None,
        **{
            name: look.histogram(name)
            for name in ("input_len", "output_len", "ttft", "tpot", "itl", "e2el")
        },
        notes=tuple(notes),
    )


def _server(scrape: Scrape) -> tuple[str, Names]:
    plain = {name.removeprefix("kserve_") for name in scrape.samples}
    for server, names in SERVERS.items():
        known = {n for ours in ("running", "finished", "ttft") for n in names.get(ours, ())}
        if any(name.startswith(n) for n in known for name in plain):
            return server, names
    raise DataError(
        f"no metrics of {', '.join(SERVERS)} among {len(plain)} names; is it a server's /metrics?"
    )


@dataclass(frozen=True, slots=True)
class _Look:
    scrapes: Sequence[Scrape]
    names: Names

    def _values(self, scrape: Scrape, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return scrape.samples.get(name) or scrape.samples.get(f"kserve_{name}") or {}

    def _found(self, ours: str, suffix: str = "") -> str | None:
        names = (f"{name}{suffix}" for name in self.names.get(ours, ()))
        return next((n for n in names if self._values(self.scrapes[-1], n)), None)

    def model(self) -> str | None:
        """Return the one model that the labels name."""
        named = {
            value
            for series in self.scrapes[-1].samples.values()
            for labels in series
            for key, value in labels
            if key in MODEL_LABELS and value
        }
        return named.pop() if len(named) == 1 else None

    def gauge(self, ours: str, *, mean: bool = False) -> float | None:
        """Return a gauge averaged over the scrapes: the sum over engines, or their mean."""
        name = self._found(ours)
        if name is None:
            return None
        found = [list(self._values(s, name).values()) for s in self.scrapes]
        totals = [sum(v) / (len(v) if mean else 1) for v in found if v]
        value = float(np.mean(totals))
        return value if math.isfinite(value) else None

    def growth(self, *gauges: str) -> float:
        """Return by how much gauges grew from the first scrape to the last; 0 for a single one."""
        if len(self.scrapes) == 1:
            return 0.0
        names = [n for g in gauges if (n := self._found(g)) is not None]
        ends = [
            sum(sum(self._values(s, n).values()) for n in names)
            for s in (self.scrapes[0], self.scrapes[-1])
        ]
        return ends[1] - ends[0]

    def counter(self, ours: str) -> float | None:
        """Return by how much a counter grew; since its start for a single scrape."""
        name = self._found(ours)
        return None if name is None else self._grown(name)

    def _grown(self, name: str) -> float:
        if len(self.scrapes) == 1:
            return sum(self._values(self.scrapes[0], name).values())
        pairs = itertools.pairwise(self._values(s, name) for s in self.scrapes)
        return sum(_step(before, after) for before, after in pairs)

    def hit_share(self) -> float | None:
        """Return the share of prompt tokens found in the prefix cache."""
        asked, hits = self.counter("cache_queries"), self.counter("cache_hits")
        if asked and hits is not None:
            return min(hits / asked, 1.0)
        inputs, cached = self.histogram("input_len"), self.histogram("cached_len")
        if inputs is not None and cached is not None and inputs.total:
            return min(cached.total / inputs.total, 1.0)
        return self.gauge("hit_rate", mean=True)

    def histogram(self, ours: str) -> Histogram | None:
        """Return a histogram of what was observed between first and last scrape."""
        name = self._found(ours, "_bucket")
        if name is None:
            return None
        base = name.removesuffix("_bucket")
        grown: dict[float, float] = {}
        first, last = (self._values(s, name) for s in (self.scrapes[0], self.scrapes[-1]))
        alone = len(self.scrapes) == 1
        for labels, value in last.items():
            edge = float(dict(labels).get("le", "nan"))
            before = 0.0 if alone else first.get(labels, 0.0)
            if not math.isnan(edge):
                grown[edge] = grown.get(edge, 0.0) + (value - before if value >= before else value)
        return Histogram.of(grown, self._grown(f"{base}_sum"))

    def life(self) -> float | None:
        """Return how long the server has run, if the scrape has a time and its start."""
        started = self.scrapes[-1].samples.get("process_start_time_seconds")
        if not started or not math.isfinite(self.scrapes[-1].at):
            return None
        life = self.scrapes[-1].at - min(started.values())
        return life if life > 0 else None

    def arrival_scv(self) -> float | None:
        """Return variance over mean of the arrivals between scrapes: the gaps' squared CV.

        That holds for renewal arrivals over intervals with many; None for too few.
        """
        name = self._found("finished")
        gauges = [n for g in ("running", "waiting") if (n := self._found(g)) is not None]
        if name is None or len(self.scrapes) <= FEWEST_COUNTS:
            return None
        counts = []
        for a, b in itertools.pairwise(self.scrapes):
            inside = sum(
                sum(self._values(b, g).values()) - sum(self._values(a, g).values()) for g in gauges
            )
            counts.append(_step(self._values(a, name), self._values(b, name)) + inside)
        mean = float(np.mean(counts))
        if sum(counts) < FEWEST_COUNTS or mean <= 0:
            return None
        return float(np.var(counts, ddof=1)) / mean


def _step(
    before: dict[tuple[tuple[str, str], ...], float],
    after: dict[tuple[tuple[str, str], ...], float],
) -> float:
    """Return by how much a counter grew; one that fell was started again from zero."""
    return sum(v - before.get(k, 0.0) if v >= before.get(k, 0.0) else v for k, v in after.items())
