"""What a simulation returns."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.errors import InputError
from bestserve.models.met import LATENCIES, met, shares
from bestserve.models.system import Target
from bestserve.models.token_target import Seen
from bestserve.models.token_times import smooth_goodput
from bestserve.results.document import Document, plain
from bestserve.simulator.readings import Readings
from bestserve.simulator.summary import STATISTICS, Summary, summarise


class RunStatus(enum.Enum):
    """How a simulation ended; the value is the sentence a user reads."""

    OK = "all requests were served"
    SOME_REFUSED = "some requests need more KV cache than one replica has and were refused"
    ALL_REFUSED = "no request fits the KV cache of one replica; nothing was served"


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What the replicas of one pool did; arrays have one entry per replica.

    utilisation : share of the run in which a step was under way [1]
    prefill_share : share of the run spent in steps with prompt tokens [1]
    batch : mean sequences per step, over the time in steps [1]
    kv : mean tokens in the KV cache, over the time in steps; kv_peak : most [tokens]
    steps : engine steps; preemptions : evictions from the KV cache
    series : per replica (time [s], sequences in the step, tokens in the KV cache), at most 1,024
        steps evenly spaced by event
    """

    utilisation: Floats
    prefill_share: Floats
    batch: Floats
    kv: Floats
    kv_peak: Floats
    steps: Ints
    preemptions: Ints
    series: tuple[tuple[Floats, Floats, Floats], ...]


def summary_record(metric: str, summary: Summary) -> dict[str, Any]:
    """Return a latency's statistics as one flat row [ms]; what is unknown is None."""
    row: dict[str, Any] = {"latency": metric, "requests": summary.count}
    for name, half in zip(STATISTICS, summary.half_width, strict=True):
        row[f"{name}_ms"] = plain(1e3 * getattr(summary, name))
        row[f"{name}_error_ms"] = plain(1e3 * half)
    return row


@dataclass(frozen=True)
class SimulationResult(Document):
    """Every request of one run, in order of arrival; times are seconds from the run's start.

    arrival : when the client sent it; start : start of the first step that worked on it (`nan`
    if refused); first_token, last_token : as the client sees them, front-end time included
    input_len, output_len : tokens; preemptions : evictions; replica, decode_replica : who served
    it (−1: nobody; decode_replica only in disaggregated systems)
    window : first and one past the last request that count, between warm-up and cool-down
    kept : those of the window that were served, over which statistics are taken [n]
    rate : asked request rate [req/s], `nan` for a closed loop
    pools : use of the collocated pool, or of prefill and decode
    concurrency : clients of a closed loop, or the cap on requests in flight; 0: neither
    front_end : time of the front end in first_token and last_token [n] [s]
    steps : decode steps of each request [n]: output_len − 1, fewer where tokens are speculated
    stream_interval : output tokens per message; burstiness : of gamma arrivals
    cached : prompt tokens that the first admission found in a prefix cache [n], −1 if refused;
    loaded : KV tokens that each offloading tier has brought [tokens]; both empty without one
    step_ends : per pool and replica, ends of the steps with decodes [s], if recorded
    readings : what a reader met token by token, if one was named
    kinds, kind_names : what kind each request is of, and their names, where there are several [n]
    """

    status: RunStatus
    rate: float
    seed: int
    arrival: Floats
    start: Floats
    first_token: Floats
    last_token: Floats
    input_len: Ints32
    output_len: Ints32
    preemptions: Ints32
    replica: Ints32
    decode_replica: Ints32
    window: tuple[int, int]
    kept: Bools
    pools: tuple[PoolUse, ...]
    front_end: Floats
    steps: Ints32
    stream_interval: int = 1
    burstiness: float = 1.0
    concurrency: int = 0
    cached: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    loaded: tuple[int, ...] = ()
    step_ends: tuple[tuple[Floats, ...], ...] = ()
    readings: Readings | None = None
    kinds: Ints | None = None
    kind_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival)

    @cached_property
    def refused(self) -> Bools:
        """Whether a request can never fit the KV cache [n]."""
        return np.isnan(self.last_token)

    @cached_property
    def hit_share(self) -> float:
        """Share of the prompt tokens that the prefix cache saved computing [1]; 0 without one."""
        if self.cached.size == 0 or not self.kept.any():
            return 0.0
        return float(self.cached[self.kept].sum() / self.input_len[self.kept].sum())

    @cached_property
    def queue_time(self) -> Floats:
        """Wait from arrival to the first step that works on a request [n] [s]."""
        return self.start - self.arrival

    @cached_property
    def ttft(self) -> Floats:
        """Time to first token [n] [s]."""
        return self.first_token - self.arrival

    @cached_property
    def e2el(self) -> Floats:
        """End-to-end latency [n] [s]."""
        return self.last_token - self.arrival

    @cached_property
    def tpot(self) -> Floats:
        """(e2el − ttft)/(output_len − 1) [n] [s]; `nan` for one output token."""
        gaps = self.output_len - 1
        span = self.last_token - self.first_token
        out = np.full(len(span), np.nan)
        np.divide(span, gaps, out=out, where=gaps > 0)
        return out

    @cached_property
    def tokens_per_step(self) -> float:
        """Tokens that a decode gains in a step, over all steps [tokens]: 1 without drafts."""
        steps = float(self.steps[self.kept].sum())
        return float((self.output_len[self.kept] - 1).sum()) / steps if steps else 1.0

    @cached_property
    def itl_mean(self) -> float:
        """Mean time between two messages to a client, over all gaps [s].

        With drafts a message has all tokens of a step, so that this is more than TPOT.
        """
        span = float((self.last_token - self.first_token)[self.kept].sum())
        gaps = float(self.steps[self.kept].sum()) / self.stream_interval
        return span / gaps if gaps else math.nan

    @cached_property
    def stall(self) -> Floats:
        """Time that a reader waits in all after the first message [n] [s]."""
        assert self.readings is not None
        index = np.minimum(self.stream_interval, self.output_len) - 1
        start = self.ttft - self.readings.reader.pace * index
        return np.maximum(self.readings.latest - start, 0.0)

    def readers(self) -> dict[str, float]:
        """Return what readers of the kept requests met, by name: times [s], fluidity [1].

        Without a pace there are no deadlines: gaps alone are told.
        """
        readings = self.readings
        assert readings is not None
        kept, out = self.kept, {}
        if np.any(np.asarray(readings.reader.pace) > 0) and kept.any():
            waits = {"stall": self.stall[kept]}
            if readings.reader.first is not None:
                late = readings.lateness(readings.reader.first)[kept]
                waits = {"wait": np.maximum(late, 0.0), **waits}
            for name, values in waits.items():
                out[f"{name}_mean"] = float(values.mean())
                out[f"{name}_p99"] = float(np.quantile(values, 0.99))
            out["fluidity_mean"] = float(readings.fluidity[kept].mean())
        if readings.counts.sum() > 0:
            out |= {f"itl_p{p}": readings.itl(p / 100) for p in (50, 90, 99)}
            out["itl_max"] = float(readings.longest_gap[kept].max())
        return out

    def smooth_goodput(self, cost: float) -> float:
        """Return tokens less `cost` times the seconds that readers waited, a second [tokens/s].

        Of the requests that count, over the time in which they arrived; refused ones bring nothing.
        Readers start when the first token is due, or with it where no time is stated.
        """
        assert self.readings is not None
        first = self.readings.reader.first
        waits = self.stall
        if first is not None:
            late = np.maximum(self.readings.lateness(first), 0.0)
            waits = np.where(np.isfinite(first), late, waits)
        arrivals = self.arrival[slice(*self.window)]
        span = float(arrivals[-1] - arrivals[0]) if len(arrivals) > 1 else 0.0
        if span <= 0:
            return 0.0
        tokens = self.output_len[self.kept].astype(np.float64)
        return smooth_goodput(tokens, waits[self.kept], span, cost)

    def summary(self, metric: str) -> Summary:
        """Return statistics of "ttft", "tpot", "e2el" or "queue_time" over the kept requests."""
        values: Floats = getattr(self, metric)
        return summarise(values[self.kept])

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Statistics of all four latencies."""
        return {m: self.summary(m) for m in ("ttft", "tpot", "e2el", "queue_time")}

    @cached_property
    def duration(self) -> float:
        """Time from the first arrival to the last token that a client got [s]."""
        if self.refused.all():
            return 0.0
        return float(np.nanmax(self.last_token) - self.arrival[0])

    @property
    def completed(self) -> int:
        """Requests served."""
        return int(len(self) - np.count_nonzero(self.refused))

    @property
    def throughput(self) -> float:
        """Completed requests per second over the whole run, start and tail included [req/s]."""
        return self.completed / self.duration if self.duration > 0 else 0.0

    @property
    def output_throughput(self) -> float:
        """Output tokens per second over the whole run [tokens/s]."""
        tokens = float(self.output_len[~self.refused].sum())
        return tokens / self.duration if self.duration > 0 else 0.0

    def seen(self, counted: slice | Bools | Ints) -> Seen | None:
        """Return what requests met token by token [k]; None if nobody was named to watch."""
        if self.readings is None:
            return None
        lost = np.where(self.refused[counted], np.inf, 0.0)
        return Seen(
            latest=np.nan_to_num(self.readings.latest[counted]) + lost,
            stall=np.nan_to_num(self.stall[counted]) + lost,
            fluidity=np.nan_to_num(self.readings.fluidity[counted]),
            gaps=self.readings.gaps[counted],
            long_gaps=self.readings.long_gaps[counted],
        )

    def met(self, target: Target) -> dict[str, Bools | Floats]:
        """Return which of the window's requests met each objective, and all ("joint") [k].

        Refused requests meet none; a request with one output token meets any TPOT. Cool-down and
        warm-up do not count. A separate ITL objective is about gaps: their share is the mean [k].

        Raises InputError for objectives on tokens that nobody watched.
        """
        return self.met_by(slice(*self.window), target)

    def met_by(self, counted: slice | Bools | Ints, target: Target) -> dict[str, Bools | Floats]:
        """Return `met` of some requests [k]."""
        values = {name: getattr(self, name)[counted] for name in LATENCIES}
        found = met(values, self.output_len[counted] - 1, self.seen(counted), target)
        if not target.tiers:
            return found
        place = np.arange(len(self))[counted]
        joint = found["joint"].copy()
        for tier in target.tiers:
            if self.kinds is None or tier.name not in self.kind_names:
                raise InputError(f"objectives of {tier.name!r}: no requests of that class")
            mine = self.kinds[place] == self.kind_names.index(tier.name)
            own = self.met_by(place[mine], tier.target)
            joint[mine] = joint[mine] & own["joint"]
            found |= {name: own[name.rpartition(".")[2]] for name in tier.asked}
        return {**found, "joint": joint}

    def meeting(self, target: Target) -> dict[str, float]:
        """Return the share of requests that meets each objective asked for, and all ("joint") [1].

        Counted as in `met`.
        """
        return shares(self.met(target))

    def attainment(self, target: Target) -> float:
        """Return the share of requests that meet all objectives together [1]."""
        return self.meeting(target)["joint"]

    def margins(self, target: Target) -> dict[str, float]:
        """Return by how much each requirement is met, share − required; < 0: missed [1]."""
        if not target.asked:
            raise InputError("the target asks for nothing: give a ttft, tpot or e2el threshold")
        share = self.meeting(target)
        return {m: share.get(m, 0.0) - target.required(m) for m in target.requirements}

    def meets(self, target: Target) -> bool:
        """Whether the target holds: each percentile, or the joint attainment."""
        return min(self.margins(target).values()) >= 0.0

    def requests(self) -> dict[str, Any]:
        """Return one column per fact about the requests, each of length n, times in seconds."""
        return {
            "arrival": self.arrival,
            "queue_time": self.queue_time,
            "ttft": self.ttft,
            "tpot": self.tpot,
            "e2el": self.e2el,
            "input_len": self.input_len,
            "output_len": self.output_len,
            "preemptions": self.preemptions,
            "replica": self.replica,
            "decode_replica": self.decode_replica,
            "refused": self.refused,
            "kept": self.kept,
            **({"cached": self.cached} if self.cached.size else {}),
        }

    def requests_frame(self) -> Any:
        """Return a pandas frame, one row a request."""
        import pandas as pd

        return pd.DataFrame(self.requests())

    def records(self) -> list[dict[str, Any]]:
        """Return one row per latency: statistics and the half-widths of their 95 % intervals."""
        return [summary_record(metric, summary) for metric, summary in self.summaries.items()]

    def content(self) -> dict[str, Any]:
        """Return what the run amounts to; requests and series go to their own files."""
        facts: dict[str, Any] = plain(
            {
                "status": self.status,
                "request_rate": self.rate,
                "concurrency": self.concurrency,
                "seed": self.seed,
                "requests": len(self),
                "completed": self.completed,
                "duration": self.duration,
                "throughput": self.throughput,
                "output_throughput": self.output_throughput,
                "preemptions": int(self.preemptions.sum()),
                **({"hit_share": self.hit_share} if self.cached.size else {}),
                **self.summaries,
                "pools": [
                    {
                        "utilisation": pool.utilisation,
                        "prefill_share": pool.prefill_share,
                        "batch": pool.batch,
                        "kv": pool.kv,
                        "kv_peak": pool.kv_peak,
                        "steps": pool.steps,
                        "preemptions": pool.preemptions,
                    }
                    for pool in self.pools
                ],
            }
        )
        return facts
