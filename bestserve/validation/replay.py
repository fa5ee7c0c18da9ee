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
from bestserve.arrays import Floats
from bestserve.catalog.calibration import name_for
from bestserve.errors import BestserveError
from bestserve.lowering import Lowered, kv_transfer
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
)
from bestserve.readers.tidy import RowStatus, TidyRow
from bestserve.simulator import SimulationResult, simulate
from bestserve.specs.calibration import Calibration
from bestserve.specs.lengths import Fixed
from bestserve.specs.problem import Problem
from bestserve.specs.workload import Workload
from bestserve.validation.client_view import seen_by_client
from bestserve.validation.deployment import Deployment, deployment_of
from bestserve.validation.knee import at_objectives, highest_rate, objectives_of
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.protocol import MAX_REQUESTS, Protocol, protocol_of
from bestserve.validation.shared_prefixes import (
    behind_warming,
    caching_of,
    refuse_unstated,
    routing_by_prefix,
    warming,
)
from bestserve.validation.sources import Suite, suite_of

LATENCIES = tuple(f"{m}_{s}_ms" for m in ("ttft", "tpot") for s in ("mean", "p50", "p90", "p99"))
THROUGHPUTS = ("req_throughput", "out_tok_throughput")
METRICS = (*LATENCIES, *THROUGHPUTS)
"""The figures that are compared, under their tidy names."""

POOLED = 1500
"""A short random run is repeated with other seeds until this many requests are pooled."""

REPEATS = 4

STABLE = 0.9
"""Completed over offered rate below which a run taken as stationary had a growing queue."""

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
    lengths = protocol.lengths
    mean_input = float(lengths.inputs @ lengths.input_weights)
    mean_output = float(lengths.outputs @ lengths.output_weights)
    notes = (*deployment.notes, *protocol.notes)
    kv = {None: "auto", True: "fp8", False: "bf16"}[deployment.kv_fp8]
    problem = Problem(
        model=deployment.model,
        hardware=deployment.hardware,
        gpus=deployment.gpus,
        engine=deployment.engine_constants,
        precision=deployment.precision,
        kv_cache_dtype=kv,
        workload=Workload(
            input_len=Fixed(max(1, round(mean_input))), output_len=Fixed(max(1, round(mean_output)))
        ),
        routing=protocol.routing,
        tp_across_nodes=True,
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
        caching = caching_of(prepared.row, protocol.lengths)
        by_prefix = routing_by_prefix(prepared.row) if caching else None
        return Collocated(
            lane=lane,
            replicas=replicas,
            lengths=_cached(prepared, lane),
            arrivals=protocol.arrivals,
            routing=by_prefix or protocol.routing,
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


def _cached(prepared: Prepared, lane: Lane) -> Lengths:
    """Return the lengths with the prompts that a suite's earlier runs left in the cache."""
    row, engine = prepared.row, prepared.deployment.engine
    lengths = prepared.protocol.lengths
    caches = engine.family == "vllm" and engine.preset != "vllm-v0"  # V1 does by default
    if prepared.suite.repeats_prompts and caches and row.prefix_caching is not False:
        lengths = with_all_prompts(lengths, lane, prepared.protocol.requests)
    return lengths


def with_all_prompts(lengths: Lengths, lane: Lane, prompts: int) -> Lengths:
    """Return the lengths with every prompt cached in whole blocks, if the cache holds them all.

    prompts : sent over and over in the same order, so that a smaller cache has always just dropped
        the next one
    """
    tokens = float(lengths.inputs @ lengths.input_weights)
    if prompts * tokens > lane.kv_capacity_tokens:
        return lengths
    whole = np.floor((lengths.inputs - 1.0) / lane.kv_block) * lane.kv_block
    return dataclasses.replace(lengths, cached=whole)


def with_repeated_prompts(prepared: Prepared, lane: Lane, replicas: int) -> Lengths:
    """Return the lengths with prompts cached that an earlier run of the suite left on the replica.

    Each run sends its prompts in the same order, after one of them as a test, so round robin gives
    a prompt to the same replica again if the requests of some earlier runs add up to whole rounds.
    """
    row, lengths = prepared.row, prepared.protocol.lengths
    turns = prepared.suite.clients_in_turn
    if not (row.prefix_caching and row.concurrency in turns and row.num_prompts):
        return lengths
    before = turns.index(row.concurrency)
    sent = row.num_prompts + 1
    seen = any(sent * runs % replicas == 0 for runs in range(1, before + 1))
    return with_all_prompts(lengths, lane, row.num_prompts) if seen else lengths


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
            return *predict(system, prepared.protocol), prepared.notes
        except UnpredictableError as refusal:
            if refusal.outcome is not Outcome.OVERLOADED:
                raise
        finite = dataclasses.replace(prepared.protocol, steady=False, requests=ASSUMED_REQUESTS)
        note = f"beyond the predicted capacity: latencies of a run of {ASSUMED_REQUESTS} requests"
        return *predict(system, finite), (*prepared.notes, note)
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
    return figures, "simulated", (*prepared.notes, note)


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
    requests = min(protocol.requests, MAX_REQUESTS)
    random = (
        not protocol.closed or len(system.lengths.inputs) > 1 or len(system.lengths.outputs) > 1
    )
    repeats = min(REPEATS, max(1, round(POOLED / requests))) if random else 1
    # A finite run counts as the client saw it: its start and its drain included.
    trim = None if protocol.steady else 0.0
    before = 0 if system.caching is None else warming(system.caching)
    if before and protocol.closed:
        arrivals = dataclasses.replace(system.arrivals, num_prompts=before + requests)
        system = dataclasses.replace(system, arrivals=arrivals)
    runs = []
    for seed in range(repeats):
        asked, rate = system, None
        if system.arrivals.kind not in ("closed", "trace"):
            rate = protocol.rate
            if before:
                times = behind_warming(system.arrivals, rate, before, requests, seed)
                asked, rate = dataclasses.replace(system, arrivals=times), None
        runs.append(
            simulate(
                asked,
                rate,
                requests=before + requests,
                seed=seed,
                warmup=before / (before + requests) if before else trim,
                cooldown=trim,
            )
        )
    if all(run.completed == 0 for run in runs):
        raise UnpredictableError(Outcome.DOES_NOT_FIT, runs[0].status.value)
    served = float(np.mean([run.throughput for run in runs]))
    if protocol.steady and served < STABLE * protocol.rate:
        raise UnpredictableError(Outcome.OVERLOADED, f"{protocol.rate:g} of {served:.3g} req/s")
    return pooled(runs, system, protocol)


def pooled(runs: list[SimulationResult], system: System, protocol: Protocol) -> dict[str, float]:
    """Return the figures of runs that differ in their seed only, as their client sees them.

    Percentiles are means over runs, as a client sees one run; throughputs are steady ones.
    """
    out: dict[str, float] = {}
    seen = [seen_by_client(run, system, protocol) for run in runs]
    for name in ("ttft", "tpot"):
        columns: list[Floats] = []
        for one in seen:
            values = getattr(one, name)
            values = values[np.isfinite(values)]
            if values.size:
                quantiles = np.percentile(values, (50, 90, 99))
                columns.append(np.array([values.mean(), *quantiles]))
        if columns:
            for label, value in zip(("mean", "p50", "p90", "p99"), np.mean(columns, axis=0),
                                    strict=True):  # fmt: skip
                out[f"{name}_{label}_ms"] = 1e3 * float(value)
    if math.isfinite(protocol.longest_counted):
        # The rate of the requests that count; how many tokens the lost ones had got is not stated.
        rates = [one.count / run.duration for one, run in zip(seen, runs, strict=True)]
        out["req_throughput"] = float(np.mean(rates))
        return out
    if system.caching is not None:
        # of the run alone, not of the warm-up before it
        spans = [run.last_token[run.kept].max() - run.arrival[run.kept].min() for run in runs]
        for name, counts in (
            ("req_throughput", [int(run.kept.sum()) for run in runs]),
            ("out_tok_throughput", [int(run.output_len[run.kept].sum()) for run in runs]),
        ):
            out[name] = float(np.mean([n / t for n, t in zip(counts, spans, strict=True)]))
        return out
    out["req_throughput"] = float(np.mean([run.throughput for run in runs]))
    out["out_tok_throughput"] = float(np.mean([run.output_throughput for run in runs]))
    return out
