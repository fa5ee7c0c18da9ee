"""Hybrids by formula: the pure layouts at their corners, and runs of the simulator between them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bestserve.answers.referee import saturation
from bestserve.answers.simulated import growth
from bestserve.errors import InputError
from bestserve.models.attainment import attainment
from bestserve.models.goodput import goodput
from bestserve.models.hybrid import balanced_share, fluid_bound, local_share
from bestserve.models.latency import Latencies, latency, stability_rate
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Collocated,
    Disaggregated,
    Flow,
    Hybrid,
    Lane,
    Lengths,
    System,
    Target,
    Transfer,
)
from bestserve.simulator import simulate

STEP = StepTime(w=12e-3, c=60e-6, e=1e-6, a=0.5e-9, k=60e-9, a_step=1e-3, a_seq=20e-6)
WIDE = Lane(step=STEP, max_num_batched_tokens=4096)
NARROW = dataclasses.replace(WIDE, max_num_batched_tokens=384)
PROMPTS = np.exp(np.random.default_rng(3).normal(6.9, 0.7, 64))
ANSWERS = np.exp(np.random.default_rng(4).normal(5.0, 0.7, 64))
EVEN = np.full(64, 1 / 64)
LENGTHS = Lengths(inputs=PROMPTS, input_weights=EVEN, outputs=ANSWERS, output_weights=EVEN)
MOVE = Transfer(latency=3e-3, seconds_per_token=2e-6)


def hybrid(x: float, y: float = 0.0, **changes: object) -> Hybrid:
    system = Hybrid(
        prefill=WIDE,
        prefill_replicas=2,
        decode=NARROW,
        decode_replicas=3,
        lengths=LENGTHS,
        local_prefill_share=x,
        local_decode_share=y,
        transfer=MOVE,
    )
    return dataclasses.replace(system, **changes)  # type: ignore[arg-type]


def corner(x: float, y: float) -> System:
    if x == 1.0:
        return Collocated(lane=NARROW, replicas=3, lengths=LENGTHS)
    if y == 1.0:
        return Collocated(lane=WIDE, replicas=2, lengths=LENGTHS)
    return Disaggregated(
        prefill=WIDE,
        prefill_replicas=2,
        decode=NARROW,
        decode_replicas=3,
        lengths=LENGTHS,
        transfer=MOVE,
    )


def figures(found: Latencies, target: Target) -> list[float]:
    laws = [getattr(found, m) for m in ("ttft", "tpot", "e2el")]
    return [
        *(law.quantile(p) for law in laws for p in (0.5, 0.9, 0.99)),
        *(law.mean for law in laws),
        found.utilisation,
        found.stability_rate,
        found.mean_batch,
        attainment(found, target),
    ]


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("load", [0.2, 0.7])
def test_corners_are_the_pure_layouts_to_the_last_digit(x: float, y: float, load: float) -> None:
    target = Target(ttft=0.5, tpot=0.03, joint=True)
    mixed, pure = hybrid(x, y), corner(x, y)
    assert stability_rate(mixed) == stability_rate(pure)
    rate = load * stability_rate(pure)
    found, known = latency(mixed, rate), latency(pure, rate)
    assert figures(found, target) == figures(known, target)
    assert found.trust == known.trust
    assert goodput(mixed, target).rate == goodput(pure, target).rate


@pytest.mark.parametrize(
    ("x", "y", "load"), [(0.2, 0.0, 0.6), (0.35, 0.0, 0.75), (0.1, 0.3, 0.6), (0.5, 0.0, 0.5)]
)
def test_formulas_agree_with_runs_between_the_corners(x: float, y: float, load: float) -> None:
    system = hybrid(x, y)
    rate = load * stability_rate(system)
    found, run = latency(system, rate), simulate(system, rate, requests=40_000, seed=1)
    for metric, p, tolerance in (
        ("ttft", 0.5, 0.05),
        ("ttft", 0.9, 0.08),
        ("tpot", 0.5, 0.03),
        ("tpot", 0.9, 0.05),
    ):
        seen = np.nanquantile(getattr(run, metric)[run.kept], p)
        assert getattr(found, metric).quantile(p) == pytest.approx(seen, rel=tolerance), metric
    ttft, tpot = (float(np.nanquantile(getattr(run, m)[run.kept], 0.9)) for m in ("ttft", "tpot"))
    target = Target(ttft=ttft, tpot=tpot, joint=True)
    assert attainment(found, target) == pytest.approx(run.attainment(target), abs=0.04)


def test_who_moves_to_a_lane_that_forms_steps_ahead_waits_for_one_more() -> None:
    lengths = dataclasses.replace(
        LENGTHS, outputs=np.array([40.0, 80.0]), output_weights=np.full(2, 0.5)
    )
    plain = hybrid(0.2, lengths=lengths, transfer=Transfer())
    rate = 0.6 * stability_rate(plain)
    ahead = hybrid(
        0.2,
        lengths=lengths,
        transfer=Transfer(),
        decode=dataclasses.replace(NARROW, async_scheduling=True),
    )
    told = [latency(s, rate).tpot.mean for s in (plain, ahead)]
    runs = [simulate(s, rate, requests=40_000, seed=1) for s in (plain, ahead)]
    seen = [float(np.nanmean(run.tpot)) for run in runs]
    assert told[1] - told[0] == pytest.approx(seen[1] - seen[0], rel=0.15)


def test_split_by_length_knows_whose_prompts_are_where() -> None:
    system = hybrid(0.0, longest_local=800)
    short = LENGTHS.inputs <= 800
    assert local_share(system) == pytest.approx(short.mean())
    rate = 0.6 * stability_rate(system)
    found, run = latency(system, rate), simulate(system, rate, requests=40_000, seed=1)
    for metric, tolerance in (("ttft", 0.08), ("tpot", 0.05)):
        seen = np.nanquantile(getattr(run, metric)[run.kept], 0.9)
        assert getattr(found, metric).quantile(0.9) == pytest.approx(seen, rel=tolerance), metric


def test_saturation_is_the_first_pool_to_saturate() -> None:
    system = hybrid(0.25)
    limit = stability_rate(system)
    below, above = (
        simulate(system, f * limit, requests=20_000, seed=2).queue_time for f in (0.93, 1.1)
    )
    assert above[-2000:].mean() > 5 * below[-2000:].mean()


def test_balance_loads_both_pools_alike() -> None:
    system = hybrid(0.0)
    share = balanced_share(system)
    assert 0.0 < share < 1.0
    balanced = stability_rate(dataclasses.replace(system, local_prefill_share=share))
    others = [
        stability_rate(dataclasses.replace(system, local_prefill_share=other))
        for other in (0.3 * share, min(2 * share, 0.95))
    ]
    assert balanced > max(others)
    assert balanced == pytest.approx(fluid_bound(system), rel=0.1)


def test_a_budget_full_of_decodes_leaves_no_room_for_prompts() -> None:
    """Pitfall: the lane would silently be a decode lane."""
    tight = dataclasses.replace(NARROW, max_num_batched_tokens=16)
    system = hybrid(0.3, decode=tight)
    assert stability_rate(system) < 0.2 * stability_rate(hybrid(0.3))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"routing": "least_ttft"}, "least_ttft"),
        ({"prefill_queue": 4}, "queue"),
        ({"decode": dataclasses.replace(NARROW, policy="prefill_priority")}, "prefill_priority"),
    ],
)
def test_what_no_formula_knows_is_refused(changes: dict[str, object], what: str) -> None:
    with pytest.raises(InputError, match=what):
        latency(hybrid(0.2, **changes), 1.0)


def test_the_formulas_saturated_rate_is_where_queues_begin_to_grow() -> None:
    """A burst would not show it: the pools run dry one after the other."""
    system = hybrid(0.2)
    limit = saturation(system, None)
    assert limit == stability_rate(system)
    below, above = (growth(simulate(system, f * limit, requests=20_000)) for f in (0.93, 1.1))
    assert below < 0.01 < above


def test_no_router_carries_more_than_full_steps() -> None:
    system = hybrid(0.2, routing="least_ttft")
    limit = stability_rate(system)
    assert limit == fluid_bound(system) >= stability_rate(hybrid(0.2))
    # prefill lanes that take decodes, too, carry more than decode lanes alone
    long = dataclasses.replace(LENGTHS, outputs=8 * LENGTHS.outputs)
    stays = hybrid(0.2, routing="least_ttft", lengths=long)
    assert stability_rate(dataclasses.replace(stays, flow=Flow(watermark=0.8, tpot=0.1))) > (
        1.1 * stability_rate(stays)
    )
    assert growth(simulate(system, 1.05 * limit, requests=20_000)) > 0.01
