"""Shares of requests within objectives: of a measured run by its log, and of its replay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.models import token_times
from bestserve.models.met import LATENCIES, met, shares
from bestserve.models.system import Target
from bestserve.models.token_target import Seen, TokenTarget
from bestserve.readers.tidy import RequestLog
from bestserve.simulator import SimulationResult
from bestserve.validation.replay import Prepared, replayed


class Told(StrEnum):
    """Whether a log tells what objectives ask for; the value is the sentence a user reads."""

    ALL = "the log tells all of it"
    NO_REQUESTS = (
        "the log has no figures of single requests; vllm bench serve writes them with "
        "--save-detailed"
    )
    NO_MESSAGES = (
        "the log has no times of single messages, which objectives on tokens need; vllm bench "
        "serve writes them with --save-detailed"
    )
    NO_END = "the log does not say when answers ended"
    SEVERAL = (
        "messages brought several tokens: those count as even over the messages of their answer, "
        "and deadlines at the last token of a message"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """Shares of requests that met each objective, and all of them ("joint") [1].

    measured : None where the log does not tell; told : why, or what was assumed
    """

    predicted: dict[str, float]
    measured: dict[str, float] | None
    told: Told

    def record(self) -> dict[str, object]:
        """Return flat columns: the share that met all objectives, in per cent, and each of them."""
        out: dict[str, object] = {}
        for name in ("joint", *(n for n in self.predicted if n != "joint")):
            said = "all" if name == "joint" else name
            out[f"{said}_met_predicted_percent"] = 100 * self.predicted[name]
            measured = None if self.measured is None else 100 * self.measured[name]
            out[f"{said}_met_measured_percent"] = measured
        out["told"] = self.told.value
        return out

    def plain(self) -> dict[str, object]:
        """Return it as JSON types."""
        return {
            "predicted": dict(self.predicted),
            "measured": None if self.measured is None else dict(self.measured),
            "told": self.told.value,
        }


def attained_of(prepared: Prepared, target: Target) -> Attained:
    """Return the shares of a replayed row, and of its log as far as it tells them.

    Raises `UnpredictableError`.
    """
    row = prepared.row
    runs = replayed(prepared, None if target.tokens is None else target.tokens.reader)
    measured, told = measured_shares(row.requests, row.failed or 0, target)
    return Attained(
        predicted=replayed_shares(runs, prepared.protocol.longest_counted, target),
        measured=measured,
        told=told,
    )


def measured_shares(
    log: RequestLog | None, failed: int, target: Target
) -> tuple[dict[str, float] | None, Told]:
    """Return the shares in a log, or None and why it does not tell them.

    failed : requests without an answer, which meet nothing
    """
    if log is None or log.ttft is None or log.output_len is None:
        return None, Told.NO_REQUESTS
    told = Told.ALL
    seen = None
    if target.tokens is not None:
        if log.gaps is None or log.messages is None:
            return None, Told.NO_MESSAGES
        seen = seen_in(log.ttft, log.gaps, log.messages, log.output_len, target.tokens)
        if np.any(log.messages != log.output_len):
            told = Told.SEVERAL
    if log.e2el is None and (target.tpot is not None or target.e2el is not None):
        return None, Told.NO_END
    nothing = np.full(len(log.ttft), np.nan)
    values = {
        "ttft": log.ttft,
        "tpot": nothing if log.tpot is None else log.tpot,
        "e2el": nothing if log.e2el is None else log.e2el,
    }
    answered = len(log.ttft) / max(len(log.ttft) + failed, 1)
    found = shares(met(values, log.output_len - 1, seen, target))
    return {name: answered * share for name, share in found.items()}, told


def seen_in(
    ttft: Floats, gaps: Floats, messages: Ints, output_len: Ints, target: TokenTarget
) -> Seen:
    """Return what the requests of a log met token by token [n].

    gaps : between their messages, request after request [s]
    """
    n, ends = len(ttft), np.cumsum(messages - 1)
    latest, stall, index_of, long_gaps = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        own = gaps[ends[i] - messages[i] + 1 : ends[i]]
        t = ttft[i] + np.concatenate([[0.0], np.cumsum(own)])
        index = token_numbers(int(messages[i]), int(output_len[i]))
        latest[i] = token_times.lateness(t, 0.0, target.pace, index)
        stall[i] = token_times.stall_time(t, target.pace, index)
        if target.fluidity is not None:
            first = t[0] - target.pace * index[0] if target.first is None else target.first
            kept, missed = token_times.fluidity(t, first, target.pace, index)
            index_of[i] = kept / (kept + missed)
        if target.itl is not None:
            long_gaps[i] = np.count_nonzero(own > target.itl)
    return Seen(
        latest=latest,
        stall=stall,
        fluidity=index_of,
        gaps=(messages - 1).astype(np.float64),
        long_gaps=long_gaps,
    )


def token_numbers(messages: int, tokens: int) -> Ints:
    """Return the number, from 0, of the last token of each message [messages].

    As many messages as tokens bring one each. Of fewer, the first brings one, and the others share
    the rest evenly; of more, each counts as a token.

    >>> token_numbers(3, 7)
    array([0, 3, 6])
    """
    if messages >= tokens:
        return np.arange(messages)
    return np.rint(np.linspace(0 if messages > 1 else tokens - 1, tokens - 1, messages)).astype(
        np.int64
    )


def replayed_shares(
    runs: list[SimulationResult], longest_counted: float, target: Target
) -> dict[str, float]:
    """Return the shares in runs that differ in their seed only.

    longest_counted : answers of more tokens ran into the client's time limit and do not count
    """
    found: list[dict[str, float]] = []
    for run in runs:
        counted = np.zeros(len(run), dtype=np.bool_)
        counted[slice(*run.window)] = True
        counted &= run.output_len <= longest_counted
        values = {name: getattr(run, name)[counted] for name in LATENCIES}
        steps = run.output_len[counted] - 1
        found.append(shares(met(values, steps, run.seen(counted), target)))
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}
