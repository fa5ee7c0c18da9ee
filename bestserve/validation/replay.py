"""Replay of one measured row: its deployment under its client's protocol, predicted.

`prepare` resolves a row once; `system_of` lowers it with given constants, so that calibration can
vary them; `predict` runs the system as the client did, analytically where the formulas are
trusted and the run is stationary, simulated otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from bestserve.answers.doubts import splitting_doubts
from bestserve.catalog.calibration import name_for
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered, kv_transfer
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Routing,
    System,
)
from bestserve.models.token_times import Reader
from bestserve.readers.tidy import RowStatus, TidyRow
from bestserve.simulator import SimulationResult
from bestserve.specs.calibration import Calibration
from bestserve.specs.lengths import Fixed
from bestserve.specs.problem import Problem
from bestserve.specs.workload import Workload
from bestserve.validation.deployment import Deployment, deployment_of
from bestserve.validation.knee import at_objectives, highest_rate, objectives_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.pooling import GROWING, GROWTH, HIT, pooled
from bestserve.validation.protocol import Protocol, protocol_of
from bestserve.validation.repeated_prompts import with_earlier_prompts, with_repeated_prompts
from bestserve.validation.runs import runs_of
from bestserve.validation.shared_prefixes import (
    caching_of,
    counted_hits,
    fetched,
    refuse_unstated,
    routing_by_prefix,
)
from bestserve.validation.sources import Suite, suite_of

LATENCIES = tuple(f"{m}_{s}_ms" for m in ("ttft", "tpot") for s in ("mean", "p50", "p90", "p99"))
THROUGHPUTS = ("req_throughput", "out_tok_throughput")
METRICS = (*LATENCIES, *THROUGHPUTS)
"""The figures that are compared, under their tidy names."""

ASSUMED_REQUESTS = 1000
"""Requests of an overloaded run that states no number: the default of `vllm bench serve` and of
SGLang's client."""

LONE_REQUESTS = 500
"""Requests by which the time of a lone one is known, its 99th percentile included."""

MIN_REQUESTS = 300
"""Requests below which no 99th percentile is looked at."""

KNEE_REQUESTS = 12000
"""Requests of each simulation in the search for the knee, on one replica: some minutes of load, so
that the run is many times as long as a request."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that can be predicted: whose it is, what ran, how it was loaded, the problem."""

    row: TidyRow
    suite: Suite
    deployment: Deployment
    protocol: Protocol
    lowered: Lowered
    notes: tuple[str, ...]


def measured_figures(row: TidyRow) -> dict[str, float]:
    """Return what a row measured, under the tidy names; only figures that are stated."""
    return {name: value for name in METRICS if (value := getattr(row, name)) is not None}


def prepare(row: TidyRow, calibration: Calibration | None = None) -> Prepared:
    """Resolve a row. Raises `UnpredictableError` with the status and its reason."""
    if row.status is not RowStatus.USABLE:
        raise UnpredictableError(Outcome.NOT_MEASURED, row.status.value)
    if not measured_figures(row):
        raise UnpredictableError(Outcome.NOT_MEASURED)
    refuse_unstated(row)
    suite = suite_of(row)
    deployment = deployment_of(row, suite)
    protocol = protocol_of(row, suite)
    counted = counted_hits(row, protocol.lengths)
    lengths = counted.value
    protocol = dataclasses.replace(
        protocol, lengths=lengths, notes=(*protocol.notes, *counted.notes)
    )
    mean_input = float(lengths.inputs @ lengths.input_weights)
    mean_output = float(lengths.outputs @ lengths.output_weights)
    notes = (*deployment.notes, *protocol.notes)
    kv = {None: "auto", True: "fp8", False: "bf16"}[deployment.kv_fp8]
    engine = deployment.engine_constants
    if row.prefix_fetched:
        engine = dataclasses.replace(engine, kv_events=True)
    problem = Problem(
        model=deployment.model,
        hardware=deployment.hardware,
        gpus=deployment.gpus,
        engine=engine,
        precision=deployment.precision,
        kv_cache_dtype=kv,
        workload=Workload(
            input_len=Fixed(max(1, round(mean_input))), output_len=Fixed(max(1, round(mean_output)))
        ),
        routing=routing_of(row, protocol),
        tp_across_nodes=True,
        speculative_config=deployment.drafting,
    )
    lowered = Lowered(problem)
    if calibration is not None:
        lowered = calibration.applied(lowered)
        notes += calibration.doubts(
            hardware=deployment.hardware.name,
            model=name_for(calibration, deployment.model),
            engine=deployment.engine.preset,
            tps={parallelism.tp for _, _, parallelism in deployment.pools},
        )
    if deployment.disaggregated:
        notes += splitting_doubts(lowered.problem)
    return Prepared(row, suite, deployment, protocol, lowered, notes)


def routing_of(row: TidyRow, protocol: Protocol) -> Routing:
    """Return the routing of a row: by what prompts share, where that is stated and policies do."""
    if caching_of(row, protocol.lengths) is None:
        return protocol.routing
    return routing_by_prefix(row) or protocol.routing


def system_of(prepared: Prepared, lowered: Lowered | None = None) -> System:
    """Return the queueing system of a prepared row, with its own or other constants.

    Raises `UnpredictableError` when the deployment cannot be built.
    """
    low = prepared.lowered if lowered is None else lowered
    protocol = prepared.protocol
    lanes = []
    for role, count, parallelism in prepared.deployment.pools:
        try:
            found = low.lane(parallelism, role=role)
        except BestserveError as error:
            raise UnpredictableError(Outcome.NOT_MODELLED, str(error)) from None
        if found.lane is None:
            raise UnpredictableError(Outcome.DOES_NOT_FIT, found.reason)
        lanes.append((found.lane, count * found.lanes_per_instance))
    if len(lanes) == 1:
        lane, replicas = lanes[0]
        lengths = with_earlier_prompts(prepared, lane)
        if prepared.row.prefix_fetched and found.plan is not None:
            per_gpu = found.plan.kv_bytes_per_token_total / prepared.deployment.pools[0][2].gpus
            lane, lengths = fetched(lane, lengths, per_gpu)
        caching = caching_of(prepared.row, protocol.lengths)
        return Collocated(
            lane=lane,
            replicas=replicas,
            lengths=lengths,
            arrivals=protocol.arrivals,
            routing=low.problem.routing,
            caching=caching,
        )
    parallelisms = [p for _, _, p in prepared.deployment.pools]
    lane, replicas = lanes[0]
    return Disaggregated(
        prefill=lanes[0][0],
        prefill_replicas=lanes[0][1],
        decode=lanes[1][0],
        decode_replicas=lanes[1][1],
        transfer=kv_transfer(low, *parallelisms),
        lengths=with_repeated_prompts(prepared, lane, replicas),
        arrivals=protocol.arrivals,
        routing=protocol.routing,
    )


def predict(system: System, protocol: Protocol) -> tuple[dict[str, float], str]:
    """Return the predicted figures under their tidy names, and "analytic" or "simulated".

    Raises `UnpredictableError`: overloaded without end, or nothing completed.
    """
    if protocol.steady:
        found = _analytic(system, protocol)
        if found is not None:
            return found, "analytic"
    return _simulated(system, protocol), "simulated"


def predict_row(
    prepared: Prepared, lowered: Lowered | None = None
) -> tuple[dict[str, float], str, tuple[str, ...]]:
    """Return figures, method and notes of a prepared row, with its own or other constants."""
    system = system_of(prepared, lowered)
    objectives = objectives_of(prepared.row)
    if objectives is None or not prepared.suite.rate_meets_objectives:
        try:
            found, method = predict(system, prepared.protocol)
            figures, said = said_of(found, prepared.row)
            return figures, method, (*prepared.notes, *said)
        except UnpredictableError as refusal:
            if refusal.outcome is not Outcome.OVERLOADED:
                raise
        finite = dataclasses.replace(prepared.protocol, steady=False, requests=ASSUMED_REQUESTS)
        note = f"beyond the predicted capacity: latencies of a run of {ASSUMED_REQUESTS} requests"
        found, method = predict(system, finite)
        figures, said = said_of(found, prepared.row)
        return figures, method, (*prepared.notes, note, *said)
    one, protocol = one_replica(system, prepared.protocol)
    lone = dataclasses.replace(
        protocol, arrivals=Arrivals(kind="closed", concurrency=1, num_prompts=LONE_REQUESTS),
        requests=LONE_REQUESTS, steady=False,
    )  # fmt: skip
    figures, factor, more = at_objectives(
        one, protocol.rate, objectives,
        lambda s: _simulated(s, protocol), lambda s: _alone(s, lone),
    )  # fmt: skip
    for name in THROUGHPUTS:
        figures[name] *= prepared.protocol.rate / protocol.rate
    note = (
        "rate taken as the most that meets the objectives: "
        f"step times scaled by {factor:.2f}, {1e3 * more:.1f} ms a step added"
    )
    figures, _ = said_of(figures, prepared.row)
    return figures, "simulated", (*prepared.notes, note)


def replayed(prepared: Prepared, reader: Reader | None) -> list[SimulationResult]:
    """Return runs of a prepared row, for what its figures do not tell; reader : who watches.

    Raises `UnpredictableError`.
    """
    system = system_of(prepared)
    try:
        return runs_of(system, prepared.protocol, reader)
    except UnpredictableError as refusal:
        if refusal.outcome is not Outcome.OVERLOADED:
            raise
    finite = dataclasses.replace(prepared.protocol, steady=False, requests=ASSUMED_REQUESTS)
    return runs_of(system, finite, reader)


def knee_goodput(prepared: Prepared) -> tuple[float, float] | None:
    """Return the highest rate that meets the objectives of a run at its knee, predicted and offered
    [req/s]; None for other runs, and where not even the lowest tried meets them.

    Nothing is corrected here: this is how well the model knows the capacity.
    """
    objectives = objectives_of(prepared.row)
    if objectives is None or not prepared.suite.rate_meets_objectives:
        return None
    one, protocol = one_replica(system_of(prepared), prepared.protocol)

    def met(rate: float) -> bool:
        requests = max(MIN_REQUESTS, round(protocol.requests * rate / protocol.rate))
        figures = _simulated(one, dataclasses.replace(protocol, rate=rate, requests=requests))
        return figures["ttft_p99_ms"] <= objectives[0] and figures["tpot_p99_ms"] <= objectives[1]

    found = highest_rate(protocol.rate, met)
    offered = prepared.protocol.rate
    return None if found is None else (found * offered / protocol.rate, offered)


def _alone(system: System, protocol: Protocol) -> dict[str, float]:
    """Return the figures of requests that are served one after another."""
    return _simulated(dataclasses.replace(system, arrivals=protocol.arrivals), protocol)


def one_replica(system: System, protocol: Protocol) -> tuple[Collocated, Protocol]:
    """Return one of equal replicas under its share of Poisson arrivals dealt in turn.

    Every k-th arrival of a Poisson stream comes after k of its gaps: gamma with shape k.
    """
    assert isinstance(system, Collocated)  # no split service states objectives
    share = system.replicas
    arrivals = dataclasses.replace(protocol.arrivals, burstiness=float(share))
    requests = min(math.ceil(protocol.requests / share), KNEE_REQUESTS)
    return (
        dataclasses.replace(system, replicas=1, arrivals=arrivals),
        dataclasses.replace(
            protocol, arrivals=arrivals, rate=protocol.rate / share, requests=requests
        ),
    )


def _analytic(system: System, protocol: Protocol) -> dict[str, float] | None:
    """Return stationary figures from the queueing formulas, or None where they are not trusted."""
    from bestserve.models.lane_arrivals import uncovered
    from bestserve.models.latency import latency

    if uncovered(system):
        return None
    try:
        with np.errstate(all="ignore"):
            found = latency(system, protocol.rate)
    except (ValueError, ArithmeticError):
        return None
    if not found.trust.high:
        return None
    out: dict[str, float] = {}
    for name in ("ttft", "tpot"):
        law = getattr(found, name)
        out[f"{name}_mean_ms"] = 1e3 * float(law.mean)
        for share in (50, 90, 99):
            out[f"{name}_p{share}_ms"] = 1e3 * float(law.quantile(share / 100))
    if not all(map(math.isfinite, out.values())):
        return None
    outputs = float(protocol.lengths.outputs @ protocol.lengths.output_weights)
    out["req_throughput"] = protocol.rate
    out["out_tok_throughput"] = protocol.rate * outputs
    return out


def _simulated(system: System, protocol: Protocol) -> dict[str, float]:
    return pooled(runs_of(system, protocol), system, protocol)


def said_of(found: dict[str, float], row: TidyRow) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the figures under tidy names, and as notes what else a run tells of itself."""
    said: tuple[str, ...] = ()
    if found.get(GROWTH, 0.0) > GROWING:
        said += (
            "unstable: TTFT grows through the run, so it depends on how long that is; compare the "
            "throughput",
        )
    if HIT in found:
        seen = "" if row.prefix_hit is None else f", {row.prefix_hit:.0%} as servers counted"
        said += (f"{found[HIT]:.0%} of the prompt tokens found in the caches{seen}",)
    return {name: value for name, value in found.items() if name in METRICS}, said
