"""Arrivals that are not Poisson: streams, their chain, lanes kept level, slow rates."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import sympy as sp

from bestserve.models.latency import engine_of, latency, stability_rate
from bestserve.models.non_poisson.join_shortest_queue import Level
from bestserve.models.non_poisson.map_process import Stream, gamma_gaps, poisson
from bestserve.models.non_poisson.map_wait import phase_wait
from bestserve.models.non_poisson.mmpp import _Fluid
from bestserve.models.queues.bulk.wait import BulkServer, Prompts, bulk_wait
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.requests import prepare
from bestserve.models.queues.tpot.coloured_noise import coloured_sum, frequencies
from bestserve.models.queues.tpot.noise import Response, variance_of_sum
from bestserve.models.system import Arrivals, System
from bestserve.simulator import simulate

Script = Callable[[str], ModuleType]

BURSTY = Arrivals(burstiness=0.25)


def gap_moments(stream: Stream) -> list[float]:
    """Return the first three moments of the gaps of a stream whose gaps are independent."""
    first = stream.arriving.sum(axis=0) / stream.arriving.sum()
    inverse = np.linalg.inv(-stream.silent)
    rows = [first @ np.linalg.matrix_power(inverse, n) for n in (1, 2, 3)]
    return [float(row.sum()) * n for row, n in zip(rows, (1, 2, 6), strict=True)]


@pytest.mark.parametrize("shape", [0.25, 0.7, 1.0, 1.5, 3.0, 4.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_streams_have_the_moments_of_gamma_gaps(shape: float, scale: float) -> None:
    found = gap_moments(gamma_gaps(shape, scale))
    expected = [1.0, (shape + 1) / shape, (shape + 1) * (shape + 2) / shape**2]
    # bins of short gaps keep means; two stages keep two moments
    rough = 1e-3 if shape < 1 else 1e-9
    assert found[:2] == pytest.approx(expected[:2], rel=rough)
    assert found[2] == pytest.approx(expected[2], rel=0.01 if shape < 1 or shape % 1 == 0 else 0.1)


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 0.1])
def test_short_gaps_are_as_likely_as_those_of_the_gamma_law(scale: float) -> None:
    from scipy.special import gammainc

    stream = gamma_gaps(0.25, scale)
    chance, rate = stream.arriving[0] / stream.arriving[0].sum(), -np.diag(stream.silent)
    for within in (0.3, 1.0, 3.0):
        found = float(chance @ -np.expm1(-rate * within * scale))
        assert found == pytest.approx(float(gammainc(0.25, 0.25 * within * scale)), rel=0.06)


def test_streams_follow_their_derivation(script: Script) -> None:
    m = script("models/derive_streams.py")
    assert [m.mixture_moment(n) for n in range(1, 6)] == [0] * 5
    assert m.two_stages() == (0, 0)
    phases, transform = m.erlang_two()
    at = np.array([0.1, 1.0, 10.0])
    code = gamma_gaps(2.0).excess_dispersion(at)
    for i, value in enumerate(at):
        point = {m.omega: value}
        assert code[i] == pytest.approx(float(sp.N(phases.subs(point))))
        assert code[i] == pytest.approx(float(sp.N(transform.subs(point))))
    dispersion = m.levelled_dispersion().subs({m.k: 4, m.c2: 3})
    assert float(dispersion) == pytest.approx(1 + (3 - 1) / 4)


def test_thinning_keeps_the_rate_and_a_share_of_the_spread() -> None:
    whole = gamma_gaps(0.5)
    part = whole.thinned(5)
    assert float(part.phases @ part.arriving.sum(axis=1)) == pytest.approx(1.0)
    assert part.long_run == pytest.approx(whole.long_run / 5)


def server(budget: float, idle: float, prompt: np.ndarray) -> BulkServer:
    def step(x: np.ndarray) -> np.ndarray:
        return 0.008 + 3e-5 * x

    return BulkServer(
        budget=budget,
        packed=budget,
        step=step,
        vacation=0.009 if idle < 1 else 0.0,
        alone=step(prompt),
        idle=idle,
        shared=idle < 1,
    )


@pytest.mark.parametrize("budget", [2048.0, 1e5])
@pytest.mark.parametrize("idle", [1.0, 0.2])
@pytest.mark.parametrize("rate", [5.0, 15.0])
def test_poisson_stream_gives_the_poisson_chain(budget: float, idle: float, rate: float) -> None:
    tokens = np.array([500.0, 1000.0, 2000.0])
    law = Prompts.of(tokens, np.array([0.3, 0.5, 0.2]))
    known = bulk_wait(server(budget, idle, tokens), rate, law, with_steps=idle < 1)
    found = phase_wait(server(budget, idle, tokens), rate, law, poisson(), points=64)
    assert known is not None
    assert found.ttft.mean == pytest.approx(known.ttft.mean, rel=0.01)
    assert found.ttft.variance == pytest.approx(known.ttft.variance, rel=0.03)
    if known.steps is not None:
        assert found.steps.mean == pytest.approx(known.steps.mean, rel=0.005)
        assert found.steps.long_run == pytest.approx(known.steps.long_run, rel=0.03)
        assert found.steps.excess == pytest.approx(known.steps.excess, rel=0.07)


@pytest.mark.parametrize(("shape", "load"), [(4.0, 0.6), (4.0, 0.85), (2.0, 0.7), (0.25, 0.5)])
def test_one_prompt_a_step_is_the_exact_queue(shape: float, load: float) -> None:
    prompt, weight = np.array([1000.0]), np.ones(1)
    lane = server(1000.0, 1.0, prompt)
    rate = load / float(lane.alone[0])
    wait = gig1_wait(lane.alone, weight, rate, 1 / shape)
    assert wait is not None
    found = phase_wait(lane, rate, Prompts.of(prompt, weight), gamma_gaps(shape, load))
    assert found.ttft.mean - lane.alone[0] == pytest.approx(wait.mean, rel=0.03)
    exact = wait.plus(lane.alone, weight)
    assert found.ttft.quantile(0.99) == pytest.approx(exact.quantile(0.99), rel=0.03)


def test_modulated_arrivals_match_lindley() -> None:
    # rate 1.7 and 0.3 of the mean in turn, phases of 4 mean gaps
    change, relative = np.array([[-0.25, 0.25], [0.25, -0.25]]), np.diag([1.7, 0.3])
    prompt = np.array([1000.0])
    lane = server(1000.0, 1.0, prompt)
    service, rate = float(lane.alone[0]), 0.6 / float(lane.alone[0])
    rng = np.random.default_rng(3)
    ends = np.cumsum(rng.exponential(4.0 / rate, 300_000))
    work = np.cumsum(np.diff(ends, prepend=0.0) * np.tile([1.7, 0.3], 150_000) * rate)
    unit = np.cumsum(rng.exponential(size=int(work[-1] * 0.99)))
    times = np.interp(unit[unit < work[-1]], work, ends)
    steps = service - np.diff(times)
    path = np.concatenate(([0.0], np.cumsum(steps)))
    simulated = float((path - np.minimum.accumulate(path)).mean())
    found = phase_wait(
        lane, rate, Prompts.of(prompt, np.ones(1)), Stream(change - relative, relative)
    )
    assert found.ttft.mean - service == pytest.approx(simulated, rel=0.02)


def test_white_noise_is_the_noise_of_independent_gaps(cases: ModuleType) -> None:
    r = prepare(cases.lengths(1000, 200, 0.5, 0.8))
    response = Response(4e-5, 5e-8)
    at = frequencies(r, 10.0, 0.02)
    for scv in (0.25, 1.0, 4.0):
        known = variance_of_sum(r, response, 10.0, 0.02, scv)
        found = coloured_sum(r, response, 10.0, 0.02, np.full(at.size, scv - 1.0))
        assert found == pytest.approx(known, rel=1e-9, abs=1e-15)


def test_bursts_that_are_shorter_than_a_step_are_white(cases: ModuleType) -> None:
    r = prepare(cases.lengths(1000, 200, 0.5, 0.8))
    busy = gamma_gaps(0.25).excess_dispersion(frequencies(r, 1e6, 0.02))
    assert busy == pytest.approx(np.full(busy.size, 3.0), rel=1e-3)


def test_level_lanes_collect_as_much_as_arrives() -> None:
    times, share = np.array([0.01, 0.02, 0.2]), np.array([0.6, 0.3, 0.1])
    for rate in (0.1, 10.0, 1000.0):
        level = Level.of(4, rate, times, share, 0.3)
        assert float(share @ level.collected(times)) == pytest.approx(float(share @ times))
    rare = Level.of(4, 1e-4, times, share, 0.3)
    assert rare.collected(times) == pytest.approx(times, rel=1e-4)
    alone = Level.of(1, 10.0, times, share, 0.3)
    assert alone.collected(times) == pytest.approx(times)
    assert np.all(np.diff(level.edges(times, 4), axis=1) > 0)


def test_fluid_settles_where_decodes_balance(cases: ModuleType) -> None:
    system = cases.collocated("chunked", cases.lengths(400, 200, 0.0, 1.0))
    engine = engine_of(system.lane, prepare(system.lengths))
    fluid = _Fluid.of(engine, True)
    rate = 0.5 * stability_rate(system)
    last = fluid.run(np.full(4000, rate), 0.1)[:, -1]
    assert last[1] == pytest.approx(rate * engine.requests.d1 * last[4], rel=0.01)
    assert last[3] == pytest.approx(rate * 400 * 0.1)
    over = fluid.run(np.full(4000, 2.0 * stability_rate(system)), 0.1)
    grown = (over[2, -1] - over[2, 2000]) / 200 / 400
    served = over[3, 2000:].mean() / 40
    assert grown + served == pytest.approx(2.0 * stability_rate(system), rel=1e-3)
    assert served == pytest.approx(stability_rate(system), rel=0.1)


def errors(system: System, load: float, requests: int = 100_000) -> dict[str, float]:
    """Return model/simulator − 1 of mean and P90 of TTFT and TPOT."""
    rate = load * stability_rate(system)
    found = latency(system, rate)
    run = simulate(system, rate, requests=requests, seed=5)
    ttft, tpot = run.ttft[run.kept], run.tpot[run.kept]
    return {
        "ttft": found.ttft.mean / ttft.mean() - 1,
        "ttft90": found.ttft.quantile(0.9) / np.quantile(ttft, 0.9) - 1,
        "tpot": found.tpot.mean / np.nanmean(tpot) - 1,
        "tpot90": found.tpot.quantile(0.9) / np.nanquantile(tpot, 0.9) - 1,
    }


@pytest.mark.parametrize("policy", ["chunked", "mixed"])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_round_robin(cases: ModuleType, policy: str, load: float) -> None:
    system = cases.collocated(policy, replicas=4, system={"routing": "round_robin"})
    found = errors(system, load)
    # the ratio of GI/G/1 waits left 15 % of P90 TTFT, Poisson noise 7 % of P90 TPOT
    assert max(abs(e) for e in found.values()) < 0.03, found


@pytest.mark.parametrize("policy", ["chunked", "mixed"])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_bursty_gaps(cases: ModuleType, policy: str, load: float) -> None:
    found = errors(cases.collocated(policy, system={"arrivals": BURSTY}), load)
    assert max(abs(e) for e in found.values()) < 0.08, found


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_ttft_where_prompts_go_first(cases: ModuleType, load: float) -> None:
    turns = {"routing": "round_robin"}
    for system in (
        cases.collocated("prefill_priority", replicas=4, system=turns),
        cases.collocated("prefill_priority", system={"arrivals": BURSTY}),
    ):
        found = errors(system, load)
        assert max(abs(found["ttft"]), abs(found["ttft90"])) < 0.06, found


@pytest.mark.parametrize("arrivals", [Arrivals(), BURSTY])
def test_least_outstanding(cases: ModuleType, arrivals: Arrivals) -> None:
    wanted = {"routing": "least_outstanding", "arrivals": arrivals}
    found = errors(cases.collocated("chunked", replicas=4, system=wanted), 0.6)
    assert max(abs(e) for e in found.values()) < 0.15, found


def test_prefill_pool_with_bursts(cases: ModuleType) -> None:
    from dataclasses import replace

    system = replace(cases.disaggregated(2, 2, policy="chunked"), arrivals=BURSTY)
    found = errors(system, 0.6)
    assert max(abs(e) for e in found.values()) < 0.06, found


def test_slow_phases_within_capacity(cases: ModuleType) -> None:
    phases = Arrivals(kind="mmpp", rates=np.array([2.0, 2 / 3]), stays=np.array([7.5, 22.5]))
    found = errors(cases.collocated("chunked", system={"arrivals": phases}), 0.35, 200_000)
    assert max(abs(e) for e in found.values()) < 0.08, found


def test_overloaded_phases_leave_a_backlog(cases: ModuleType) -> None:
    phases = Arrivals(kind="mmpp", rates=np.array([2.0, 2 / 3]), stays=np.array([7.5, 22.5]))
    law = cases.lengths(4000, 100, 0.5, 0.8)
    system = cases.collocated("chunked", law, system={"arrivals": phases})
    rate = 0.75 * stability_rate(system)
    run = simulate(system, rate, requests=100_000, seed=5)
    ttft = run.ttft[run.kept]
    found = latency(system, rate)
    calm = latency(cases.collocated("chunked", law), rate)
    # Poisson arrivals of the same mean rate are off by a factor of five
    assert calm.ttft.mean < 0.4 * ttft.mean()
    assert found.ttft.mean == pytest.approx(ttft.mean(), rel=0.3)
    assert found.ttft.quantile(0.9) == pytest.approx(np.quantile(ttft, 0.9), rel=0.3)


def test_answers_of_one_token(cases: ModuleType) -> None:
    law = cases.lengths(1000, 1, 0.5, 0.0)
    system = cases.collocated("chunked", law, system={"arrivals": BURSTY})
    rate = 0.5 * stability_rate(system)
    run = simulate(system, rate, requests=100_000, seed=5)
    assert latency(system, rate).ttft.mean == pytest.approx(run.ttft[run.kept].mean(), rel=0.03)
