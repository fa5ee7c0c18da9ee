"""The tidy row: one measured serving run, whatever client wrote the log.

The first fields of `TidyRow` are the columns of the tidy CSV, in its order; the others are what a
replay of the run needs and some logs state. `None` means "not stated": nothing is filled in from
convention, so a caller can ask for what is missing (`TidyRow.missing`).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bestserve.arrays import Floats, Ints
from bestserve.errors import DataError, shown

MAX_TEXT = 2000
"""Longest text field kept [characters]; the longest notes in the wild are about 900."""


class RowStatus(enum.Enum):
    """Whether a run can be compared with a prediction; the value is what the user reads."""

    USABLE = "usable"
    ALL_FAILED = "no request of this run completed"
    NO_LATENCY = "the log states neither TTFT nor TPOT nor throughput of this run"
    RAMP = "the rate rises during this run, and a prediction holds one rate"


class Regime(enum.Enum):
    """How requests reached the server, as the tidy CSV words it."""

    CLOSED_LOOP = "closed_loop"
    CLIENT_CAP = "closed_loop_client_cap"
    BURST = "burst"
    OPEN_STEADY = "open_loop_steady"
    OPEN_FINITE = "open_loop_finite_or_overloaded"
    OPEN_POISSON_300 = "open_loop_poisson_300req"
    OPEN_UNKNOWN = "open_loop_unknown_state"


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return "expected text"
    if len(value) > MAX_TEXT:
        return f"longer than {MAX_TEXT} characters"
    return None if value.isprintable() else "contains unprintable characters"


def _flag(value: object) -> str | None:
    return None if isinstance(value, bool) else "expected true or false"


def _integer(low: int) -> Callable[[object], str | None]:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return "expected a whole number"
        return None if low <= value <= 10**15 else f"must be at least {low} and at most 1e15"

    return check


def _real(low: float, *, open_low: bool = False, inf: bool = False) -> Callable[[object], Any]:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "expected a number"
        if math.isnan(value) or (math.isinf(value) and not (inf and value > 0)):
            return "must be finite"
        if value < low or (open_low and value == low):
            return f"must be {'above' if open_low else 'at least'} {low:g}"
        return None

    return check


def _pair(value: object) -> str | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return "expected (lowest, highest)"
    for part in value:
        problem = _real(0.0)(part)
        if problem:
            return str(problem)
    return None if value[0] <= value[1] else "lowest above highest"


def _texts(value: object) -> str | None:
    if not isinstance(value, tuple):
        return "expected a tuple of texts"
    return next((problem for part in value if (problem := _text(part))), None)


def _shares(value: object) -> str | None:
    if not isinstance(value, tuple) or not value:
        return "expected shares"
    problems = (_real(0.0)(part) or (None if part <= 1 else "must be at most 1") for part in value)
    return next((problem for problem in problems if problem), None)


def _figures(value: object) -> str | None:
    if not isinstance(value, Mapping):
        return "expected a mapping of figures"
    for name, figure in value.items():
        problem = _text(name) or _real(0.0)(figure)
        if problem:
            return f"{name}: {problem}"
    return None


def _instance(kind: type) -> Callable[[object], str | None]:
    return lambda value: None if isinstance(value, kind) else f"expected {kind.__name__}"


def _opt(check: Callable[[object], str | None]) -> Any:
    return field(default=None, metadata={"check": check})


_WORD, _TRUTH = _text, _flag
_COUNT, _ONE_UP = _integer(0), _integer(1)
_NON_NEGATIVE, _POSITIVE = _real(0.0), _real(0.0, open_low=True)
_RATE = _real(0.0, open_low=True, inf=True)


def _share(value: object) -> str | None:
    problem: str | None = _NON_NEGATIVE(value)
    return problem or (None if value <= 1 else "must be at most 1")  # type: ignore[operator]


_SHARE = _share


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLog:
    """Per-request figures of the completed requests of a run, aligned; `None`: not in the log.

    input_len, output_len : int64[n] [tokens]
    ttft, tpot, e2el : float64[n] [s]; tpot is nan for requests of fewer than two output tokens
    start : float64[n] [s] from the first request sent
    cached : int64[n], prompt tokens that the server found in its prefix cache [tokens]
    messages : int64[n], those that brought its tokens; gaps : float64[Σ(messages − 1)] [s] between
        them, request after request
    """

    input_len: Ints | None = None
    output_len: Ints | None = None
    ttft: Floats | None = None
    tpot: Floats | None = None
    e2el: Floats | None = None
    start: Floats | None = None
    cached: Ints | None = None
    messages: Ints | None = None
    gaps: Floats | None = None

    def __len__(self) -> int:
        arrays = (getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "gaps")
        return next((len(a) for a in arrays if a is not None), 0)


_REGIME, _REQUESTS = _instance(Regime), _instance(RequestLog)


@dataclass(frozen=True, slots=True, kw_only=True)
class TidyRow:
    """One measured run. Raises `DataError` naming row and field when a value cannot be one.

    Columns of the tidy CSV (latencies [ms], throughputs [1/s], lengths [tokens]):

    request_rate : the rate asked of the client [req/s]; inf: no pacing
    concurrency : requests in flight at most, as the client was told
    req_throughput : completed requests per second
    tp, pp : of an engine instance; of a disaggregated run see `prefill_tp`, `decode_tp`
    dp_or_replicas : as written; parsed into `replicas` and `attention_dp`
    disaggregated : prefill and decode on separate instances

    What replay needs beyond them:

    replicas : engine instances behind the load balancer
    attention_dp, attention_tp : data-parallel attention groups, and GPUs in each
    ep, moe_tp : expert parallelism; `prefill_*`, `decode_*`: the two halves when disaggregated
    num_prompts, completed, failed : requests sent, finished and failed
    achieved_rate : arrival rate the client managed [req/s]
    mean_concurrency : requests in flight, time-averaged over the run
    arrivals : "poisson", "gamma", "constant", "trace", "burst" or "closed"
    burstiness : gamma shape of the gaps (1: Poisson)
    duration : first request sent to last one finished [s]; send_duration: of the sending alone
    input_len_asked, output_len_asked : nominal lengths where the realised ones differ [tokens]
    input_len_range, output_len_range : lengths drawn uniformly between these [tokens]
    input_len_p50, output_len_p50 : medians of the data set, where the log states them [tokens]
    output_len_max : limit on generated tokens, where lengths come from a data set [tokens]
    input_len_std, output_len_std : standard deviation of the realised lengths [tokens]
    range_ratio : lowest length as a share of the highest, as the client was told
    prefix_len, prefix_groups, prefix_prompts : shared prefix [tokens], how many different ones,
        and requests (or questions) on each
    prefix_fetched : whole prompts came from another instance's cache
    prefix_hit : share of the prompt tokens that the server found in its prefix cache [1]
    in_process : the client drove the engine without HTTP
    batch_size, prefill_batch_size, decode_batch_size : the source's column of that name
    more : further figures by tidy-like name ("ttft_p95_ms", "itl_mean_ms", "e2el_std_ms")
    requests : per-request figures, where the log has them
    origin : file and record the row was read from
    stated : names of the fields that the caller gave, not the log
    format : name of the reader
    """

    id: str = field(metadata={"check": _WORD})
    trust: str | None = _opt(_WORD)
    regime: Regime | None = field(default=None, metadata={"check": _REGIME})
    gpu_canonical: str | None = _opt(_WORD)
    source: str | None = _opt(_WORD)
    url_or_repo_path: str | None = _opt(_WORD)
    licence: str | None = _opt(_WORD)
    date: str | None = _opt(_WORD)
    model: str | None = _opt(_WORD)
    gpu: str | None = _opt(_WORD)
    num_gpus: int | None = _opt(_ONE_UP)
    engine: str | None = _opt(_WORD)
    engine_version: str | None = _opt(_WORD)
    precision: str | None = _opt(_WORD)
    tp: int | None = _opt(_ONE_UP)
    pp: int | None = _opt(_ONE_UP)
    dp_or_replicas: str | None = _opt(_WORD)
    disaggregated: bool | None = _opt(_TRUTH)
    dataset_or_lengths: str | None = _opt(_WORD)
    input_len_mean: float | None = _opt(_POSITIVE)
    output_len_mean: float | None = _opt(_POSITIVE)
    request_rate: float | None = _opt(_RATE)
    concurrency: int | None = _opt(_ONE_UP)
    ttft_mean_ms: float | None = _opt(_NON_NEGATIVE)
    ttft_p50_ms: float | None = _opt(_NON_NEGATIVE)
    ttft_p90_ms: float | None = _opt(_NON_NEGATIVE)
    ttft_p99_ms: float | None = _opt(_NON_NEGATIVE)
    tpot_mean_ms: float | None = _opt(_NON_NEGATIVE)
    tpot_p50_ms: float | None = _opt(_NON_NEGATIVE)
    tpot_p90_ms: float | None = _opt(_NON_NEGATIVE)
    tpot_p99_ms: float | None = _opt(_NON_NEGATIVE)
    req_throughput: float | None = _opt(_NON_NEGATIVE)
    out_tok_throughput: float | None = _opt(_NON_NEGATIVE)
    notes: tuple[str, ...] = field(default=(), metadata={"check": _texts})

    e2el_mean_ms: float | None = _opt(_NON_NEGATIVE)
    e2el_p50_ms: float | None = _opt(_NON_NEGATIVE)
    e2el_p90_ms: float | None = _opt(_NON_NEGATIVE)
    e2el_p99_ms: float | None = _opt(_NON_NEGATIVE)

    replicas: int | None = _opt(_ONE_UP)
    attention_dp: int | None = _opt(_ONE_UP)
    attention_tp: int | None = _opt(_ONE_UP)
    ep: int | None = _opt(_ONE_UP)
    moe_tp: int | None = _opt(_ONE_UP)
    prefill_workers: int | None = _opt(_ONE_UP)
    decode_workers: int | None = _opt(_ONE_UP)
    prefill_tp: int | None = _opt(_ONE_UP)
    decode_tp: int | None = _opt(_ONE_UP)
    prefill_pp: int | None = _opt(_ONE_UP)
    decode_pp: int | None = _opt(_ONE_UP)
    prefill_ep: int | None = _opt(_ONE_UP)
    decode_ep: int | None = _opt(_ONE_UP)
    prefill_attention_dp: int | None = _opt(_ONE_UP)
    decode_attention_dp: int | None = _opt(_ONE_UP)
    prefill_batch_size: int | None = _opt(_ONE_UP)
    decode_batch_size: int | None = _opt(_ONE_UP)
    batch_size: int | None = _opt(_ONE_UP)

    num_prompts: int | None = _opt(_COUNT)
    completed: int | None = _opt(_COUNT)
    failed: int | None = _opt(_COUNT)
    achieved_rate: float | None = _opt(_NON_NEGATIVE)
    mean_concurrency: float | None = _opt(_NON_NEGATIVE)
    arrivals: str | None = _opt(_WORD)
    burstiness: float | None = _opt(_POSITIVE)
    duration: float | None = _opt(_NON_NEGATIVE)
    send_duration: float | None = _opt(_NON_NEGATIVE)

    input_len_asked: float | None = _opt(_POSITIVE)
    output_len_asked: float | None = _opt(_POSITIVE)
    input_len_range: tuple[float, float] | None = _opt(_pair)
    output_len_range: tuple[float, float] | None = _opt(_pair)
    input_len_p50: float | None = _opt(_POSITIVE)
    output_len_p50: float | None = _opt(_POSITIVE)
    output_len_max: float | None = _opt(_POSITIVE)
    input_len_std: float | None = _opt(_NON_NEGATIVE)
    output_len_std: float | None = _opt(_NON_NEGATIVE)
    range_ratio: float | None = _opt(_NON_NEGATIVE)
    prefix_len: float | None = _opt(_NON_NEGATIVE)
    prefix_groups: int | None = _opt(_ONE_UP)
    prefix_prompts: int | None = _opt(_ONE_UP)
    prefix_hit: float | None = _opt(_SHARE)
    prefix_fetched: bool | None = _opt(_TRUTH)
    ignore_eos: bool | None = _opt(_TRUTH)

    max_num_seqs: int | None = _opt(_ONE_UP)
    max_num_batched_tokens: int | None = _opt(_ONE_UP)
    max_model_len: int | None = _opt(_ONE_UP)
    gpu_memory_utilization: float | None = _opt(_POSITIVE)
    chunked_prefill: bool | None = _opt(_TRUTH)
    prefix_caching: bool | None = _opt(_TRUTH)
    kv_cache_dtype: str | None = _opt(_WORD)
    stream_interval: int | None = _opt(_ONE_UP)
    num_scheduler_steps: int | None = _opt(_ONE_UP)
    async_scheduling: bool | None = _opt(_TRUTH)
    speculative_decoding: bool | None = _opt(_TRUTH)
    draft_method: str | None = _opt(_WORD)
    draft_tokens: int | None = _opt(_ONE_UP)
    accept_length: float | None = _opt(_real(1.0))
    accepted_by_position: tuple[float, ...] | None = _opt(_shares)
    engine_generation: str | None = _opt(_WORD)
    routing: str | None = _opt(_WORD)
    saturated: bool | None = _opt(_TRUTH)
    in_process: bool | None = _opt(_TRUTH)

    more: Mapping[str, float] = field(default_factory=dict, metadata={"check": _figures})
    requests: RequestLog | None = field(default=None, metadata={"check": _REQUESTS})
    status: RowStatus = field(default=RowStatus.USABLE, metadata={"check": _instance(RowStatus)})
    origin: str = field(default="", metadata={"check": _WORD})
    format: str = field(default="", metadata={"check": _WORD})
    stated: tuple[str, ...] = field(default=(), metadata={"check": _texts})

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value is None and f.default is None:
                continue
            problem = f.metadata["check"](value)
            if problem:
                place = f"{self.origin} row {shown(self.id)}".strip()
                raise DataError(f"{place}: {f.name} is {shown(value)}: {problem}")

    @property
    def max_concurrency(self) -> int | None:
        """The client's cap on requests in flight, under vLLM's name for it."""
        return self.concurrency

    @property
    def reason(self) -> str:
        """Why the row cannot be compared; empty when it can."""
        return "" if self.status is RowStatus.USABLE else self.status.value

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the settings a prediction needs that this row does not state."""
        absent = [name for name in ("model", "gpu", "engine") if getattr(self, name) is None]
        if self.disaggregated:
            halves = ("prefill_workers", "decode_workers", "prefill_tp", "decode_tp")
            absent += [name for name in halves if getattr(self, name) is None]
        elif self.tp is None and self.num_gpus != 1:
            absent.append("tp")
        for side in ("input_len", "output_len"):
            stated = (f"{side}_{what}" for what in ("mean", "asked", "range", "p50"))
            if all(getattr(self, name) is None for name in stated):
                absent.append(f"{side}_mean")
        if self.request_rate is None and self.concurrency is None:
            absent.append("request_rate")
        elif self.request_rate == math.inf and self.concurrency is None and not self.num_prompts:
            absent.append("num_prompts")
        return tuple(absent)


ASKED = {
    "model": "the model (--model)",
    "gpu": "the GPU (--gpu)",
    "engine": "the engine (--engine, better with --engine-version)",
    "tp": "how the model is split over GPUs (--gpus, --tensor-parallel-size)",
    "request_rate": "the load (--request-rate or --max-concurrency)",
    "num_prompts": "how many prompts were sent (--num-prompts)",
}
"""What of `TidyRow.missing` a flag can state, in words."""


def asking(row: TidyRow) -> str:
    """Return the sentence that asks for what a prediction needs and flags can state, or ""."""
    wanted = [ASKED[name] for name in row.missing if name in ASKED]
    return f"the log does not state {'; '.join(wanted)}" if wanted else ""


_FIELDS = tuple(f.name for f in dataclasses.fields(TidyRow))
COLUMNS: tuple[str, ...] = _FIELDS[: _FIELDS.index("notes") + 1]
"""Columns of the tidy CSV, in order."""

SETTABLE: frozenset[str] = frozenset(_FIELDS) - {
    "id", "status", "origin", "format", "requests", "more", "notes", "regime", "stated"
}  # fmt: skip
"""Fields a caller may state for a log that does not (see `formats.read_log`)."""


def regime_of(
    request_rate: float | None, concurrency: int | None, throughput: float | None
) -> Regime | None:
    """How the load was driven, from the rate asked [req/s], the cap and the completed rate.

    None where that cannot be told: no load stated, or a rate without what was completed.

    A client that fell 5 % or more short of its rate was held back by its cap, or left the server
    with a queue that a steady-state formula does not know.
    """
    paced = request_rate is not None and math.isfinite(request_rate)
    if request_rate is None and concurrency is None:
        return None
    if not paced:
        return Regime.BURST if concurrency is None else Regime.CLOSED_LOOP
    assert request_rate is not None
    if throughput is None:
        return None
    if throughput < 0.95 * request_rate:
        return Regime.OPEN_FINITE if concurrency is None else Regime.CLIENT_CAP
    return Regime.OPEN_STEADY


def status_of(
    completed: int | None, ttft: float | None, tpot: float | None, throughput: float | None = None
) -> RowStatus:
    """Whether a run with these counts and mean or median latencies can be compared.

    A run that states its throughput alone is compared by that.
    """
    if completed == 0:
        return RowStatus.ALL_FAILED
    if ttft is None and tpot is None and not throughput:
        return RowStatus.NO_LATENCY
    return RowStatus.USABLE
