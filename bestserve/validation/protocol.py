"""From a measured row to how its client loaded the server: lengths, arrivals, number of prompts.

TTFT depends on this more than on anything else: closed loops start with a burst of all clients,
finite runs drain, caps turn an offered rate into a closed loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bestserve.models.system import Arrivals, Lengths, Routing
from bestserve.readers.tidy import Regime, TidyRow
from bestserve.validation.datasets import blank_answers, lengths_of
from bestserve.validation.outcome import Noted, Outcome, UnpredictableError
from bestserve.validation.sources import Suite

CONSTANT_RATE = 1000.0
"""Gamma shape of gaps that a client keeps constant (3 % jitter) [1]."""

STEADY_REQUESTS = 6000
"""Requests simulated where a run is long enough to be taken as stationary."""

MAX_REQUESTS = 30000

MOST_CLIENTS = 20_000
MOST_TOKENS = 10_000_000.0
MOST_REPLICAS = 4096
"""Runs beyond these bounds are refused: no client drives them, but a log may claim them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How the client drove the run.

    rate : offered [req/s], 0 for closed loops; requests : how many it sent, or are simulated
    steady : statistics over the stationary middle, not over the whole run
    blanks_count_zero : the client counts a TTFT of 0 for answers without text (one token: the end)
    client_period : the client runs once in so long, 0: whenever it has to [s]
    longest_counted : answers beyond this ran into the client's time limit and do not count [tokens]
    notes : the rules that decided what the row left open
    """

    arrivals: Arrivals
    rate: float
    requests: int
    lengths: Lengths
    routing: Routing
    steady: bool
    blanks_count_zero: bool = False
    client_period: float = 0.0
    longest_counted: float = math.inf
    notes: tuple[str, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether clients wait for their answers."""
        return self.arrivals.kind == "closed"


def protocol_of(row: TidyRow, suite: Suite) -> Protocol:
    """Return how a suite's client loaded the server. Raises `UnpredictableError`."""
    lengths = lengths_of(row, suite)
    for name in ("inputs", "outputs"):
        if float(getattr(lengths.value, name).max()) > MOST_TOKENS:
            raise UnpredictableError(
                Outcome.NOT_MODELLED, f"{name} above {MOST_TOKENS:,.0f} tokens"
            )
    if (row.concurrency or 0) > MOST_CLIENTS or (row.replicas or 0) > MOST_REPLICAS:
        raise UnpredictableError(
            Outcome.NOT_MODELLED, f"above {MOST_CLIENTS:,} clients or {MOST_REPLICAS:,} replicas"
        )
    (arrivals, rate, requests, steady), said = _load(row, suite)
    return Protocol(
        arrivals=arrivals,
        rate=rate,
        requests=requests,
        lengths=lengths.value,
        routing=_routing(row, suite),
        steady=steady,
        blanks_count_zero=blank_answers(row, suite),
        client_period=suite.client_period,
        longest_counted=_longest_counted(row),
        notes=(*lengths.notes, *said),
    )


def _load(row: TidyRow, suite: Suite) -> Noted[tuple[Arrivals, float, int, bool]]:
    """Return arrivals, rate [req/s], number of requests and whether statistics are stationary."""
    notes: tuple[str, ...] = ()
    prompts = row.num_prompts or row.completed
    if suite.long_prompts and "longctx" in (row.dataset_or_lengths or ""):
        prompts = suite.long_prompts
        notes = (f"{prompts} prompts: {suite.name}",)
    rate, clients = row.request_rate, row.concurrency
    paced = rate is not None and math.isfinite(rate)
    if row.regime is Regime.BURST or (rate is not None and not paced and clients is None):
        if prompts is None:
            raise UnpredictableError(Outcome.LOAD_MISSING, "how many prompts the burst had")
        if prompts > MOST_CLIENTS:
            raise UnpredictableError(Outcome.NOT_MODELLED, f"a burst of {prompts:,} prompts")
        return Noted((_closed(prompts, prompts), 0.0, prompts, False), notes)
    if clients is not None and (not paced or rate is None):
        if prompts is None:
            prompts = suite.prompts_per_client * clients
            notes += (f"{suite.prompts_per_client} prompts per client",)
        if prompts > max(MAX_REQUESTS, 2 * clients):
            prompts = max(MAX_REQUESTS, 2 * clients)
            notes += (f"the first {prompts:,} prompts stand for the run",)
        return Noted((_closed(clients, prompts), 0.0, prompts, False), notes)
    if not paced or rate is None:
        raise UnpredictableError(Outcome.LOAD_MISSING, "give --request-rate or --max-concurrency")
    if prompts is None and (seconds := suite.stage_length(row, rate)) is not None:
        prompts = math.ceil(seconds * rate)
    elif prompts is None and row.send_duration:
        prompts = math.ceil(row.send_duration * rate)
    sent = row.requests.start if row.requests is not None else None
    if sent is not None and len(sent) > 1 and clients is None:
        return Noted((Arrivals(kind="trace", times=sent), rate, len(sent), False), notes)
    shape = CONSTANT_RATE if row.arrivals == "constant" else (row.burstiness or 1.0)
    arrivals = Arrivals(burstiness=shape, cap=clients or 0)
    if prompts is None:
        notes += ("number of prompts not stated: stationary statistics",)
        return Noted((arrivals, rate, STEADY_REQUESTS, True), notes)
    return Noted((arrivals, rate, prompts, False), notes)


def _longest_counted(row: TidyRow) -> float:
    """Return the longest answer that came before the client's time limit [tokens]."""
    lost = row.num_prompts and row.completed is not None and row.completed < row.num_prompts
    if row.ignore_eos is False and lost and row.output_len_asked:
        return row.output_len_asked - 1.0
    return math.inf


def _closed(clients: int, prompts: int) -> Arrivals:
    return Arrivals(kind="closed", concurrency=min(clients, prompts), num_prompts=prompts)


def _routing(row: TidyRow, suite: Suite) -> Routing:
    """Return how requests found their replica; round robin is what most balancers do."""
    text = (row.routing or "").lower()
    if "random" in text:
        return "random"
    if "load" in text and suite.by_load is not None:
        return suite.by_load
    return "least_outstanding" if "load" in text or "least" in text else "round_robin"
