"""The characteristic-time formula against simulations that keep the blocks; what rests on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bestserve.models.lane_arrivals import known_part, uncovered
from bestserve.models.latency import latency, stability_rate
from bestserve.models.prefix_hits import hits, with_hits
from bestserve.models.prefixes import Caching, Law, Sharing, Tier
from bestserve.models.status import LatencyStatus
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Lane, Lengths, Routing
from bestserve.simulator import simulate

ONE = np.ones(1)
WHOLE = Lengths(inputs=6500 * ONE, input_weights=ONE, outputs=200 * ONE, output_weights=ONE)
GROUPS = Sharing(
    groups=150, prefix=Law.of(6000), own=Law.of(500), first=Law.of(500), output=Law.of(200)
)
TALK = Sharing(
    own=Law.of(100), first=Law.of(800), output=Law.of(200), turns=Law.of(8),
    pause=Law.of(30.0), pause_random=True,
)  # fmt: skip


def system(sharing: Sharing, capacity: float, routing: Routing = "random") -> Collocated:
    step = StepTime(w=6e-3, c=26e-6, e=0, a=1e-10, k=2e-8, a_step=5e-4, a_seq=1e-5)
    return Collocated(
        lane=Lane(step=step, kv_capacity_tokens=capacity, kv_block=16),
        replicas=4,
        lengths=WHOLE,
        routing=routing,
        caching=Caching(sharing=sharing),
    )


@pytest.mark.parametrize("routing", ["random", "session_affine"])
@pytest.mark.parametrize("capacity", [60e3, 200e3, 800e3])
@pytest.mark.parametrize(("sharing", "rate"), [(GROUPS, 8.0), (TALK, 12.0)])
def test_formula_finds_what_the_blocks_show(
    sharing: Sharing, rate: float, capacity: float, routing: Routing
) -> None:
    asked = system(sharing, capacity, routing)
    run = simulate(asked, rate, requests=12_000)
    assert hits(asked, rate).share == pytest.approx(run.hit_share, abs=0.03)


def test_hits_are_all_or_nothing_not_a_mean() -> None:
    law = hits(system(GROUPS, 200e3), 8.0).lengths
    assert set(law.cached.round(6).tolist()) == {0.0, 6000.0}


def test_latency_and_saturation_count_the_hits() -> None:
    asked = system(GROUPS, 800e3)
    run = simulate(asked, 8.0, requests=24_000)
    found = latency(asked, 8.0)
    assert found.ttft.mean == pytest.approx(run.summary("ttft").mean, rel=0.08)
    assert found.ttft.quantile(0.9) == pytest.approx(run.summary("ttft").p90, rel=0.08)
    assert stability_rate(asked) > 1.8 * stability_rate(replace(asked, caching=None))
    assert latency(asked, 40.0).status is LatencyStatus.UNSTABLE


def test_affine_routing_keeps_its_hits_where_formulas_route_at_random() -> None:
    asked = system(GROUPS, 200e3, "session_affine")
    assert "session_affine" in uncovered(asked)
    known = known_part(asked)
    assert known.routing == "random"
    assert hits(known, 8.0).share == pytest.approx(hits(asked, 8.0).share)


def test_tiers_are_simulated() -> None:
    tier = Tier(capacity_tokens=1e6)
    asked = replace(system(GROUPS, 200e3), caching=Caching(sharing=GROUPS, tiers=(tier,)))
    assert uncovered(asked) == "tiers of KV blocks"


def test_without_caches_nothing_changes() -> None:
    plain = replace(system(GROUPS, 200e3), caching=None)
    assert with_hits(plain, 8.0) is plain
