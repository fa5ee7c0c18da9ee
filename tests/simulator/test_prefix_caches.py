"""Prefix caches by segments equal a naive loop that keeps every block, in every mode."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.models.policies import policies
from bestserve.models.prefix_tree import PrefixTree, draw
from bestserve.models.prefixes import Caching, Law, Sharing, Tier
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import (
    Arrivals,
    Collocated,
    Disaggregated,
    Lane,
    Lengths,
    System,
    Transfer,
)
from bestserve.simulator import Requests, simulate
from bestserve.simulator.inputs import BACK_ROUTES, ROUTES, stream


def _naive() -> Any:
    if "naive" not in sys.modules:
        path = Path(__file__).parent / "naive.py"
        spec = importlib.util.spec_from_file_location("naive", path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["naive"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["naive"])
    return sys.modules["naive"]


naive = _naive()
ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)
STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6, phi=1.1)
ROUTINGS = (
    "random",
    "least_outstanding",
    "reported_kv",
    "session_affine",
    "prefix_hash",
    "prefix_aware",
    "prefix_estimated",
)


def law(low: int, high: int) -> Law:
    values = np.arange(low, high + 1, dtype=float)
    return Law(values=values, weights=np.full(len(values), 1 / len(values)))


@st.composite
def cases(draw_: st.DrawFn) -> tuple[System, Requests]:
    """A crowded system with sessions, groups or repeated questions."""
    n = draw_(st.integers(5, 60))
    longest = draw_(st.sampled_from((6, 40)))
    most = draw_(st.sampled_from((1, 8, 30)))
    turns = draw_(st.sampled_from((1, 1, 4)))
    sharing = Sharing(
        groups=draw_(st.sampled_from((0, 1, 3, 6))),
        prefix=law(0, draw_(st.sampled_from((5, 60)))),
        skew=draw_(st.sampled_from((0.0, 1.0))),
        questions=0 if turns > 1 else draw_(st.sampled_from((0, 2))),
        own=law(1, longest),
        first=law(1, longest),
        output=law(1, most),
        turns=law(1, turns),
        pause=law(0, 1),
        pause_random=True,
    )
    tree, prompt, output = draw(sharing, n, np.random.default_rng(draw_(st.integers(0, 10**6))))
    longest_need = int((prompt + output).max())
    kv = draw_(st.one_of(st.just(float("inf")), st.integers(20, 3 * longest_need + 40).map(float)))
    lane = Lane(
        step=STEP,
        policy=draw_(st.sampled_from(tuple(policies()))),
        max_num_seqs=draw_(st.sampled_from((2, 5, 256))),
        max_num_batched_tokens=draw_(st.sampled_from((8, 32, 8192))),
        kv_capacity_tokens=kv,
        kv_reserve=draw_(st.sampled_from((0.0, 0.0, 0.4, 1.0))),
        kv_block=draw_(st.sampled_from((1, 3, 8))),
        async_scheduling=draw_(st.booleans()),
    )
    tiers: tuple[Tier, ...] = ()
    if draw_(st.booleans()):
        tiers = (
            Tier(
                capacity_tokens=float(draw_(st.integers(20, 400))),
                seconds_per_token=1.37e-3,
                latency=draw_(st.sampled_from((0.0, 3.1e-3))),
                shared=draw_(st.booleans()),
            ),
            Tier(name="disk", capacity_tokens=500.0, seconds_per_token=7.7e-3, latency=0.011),
        )[: draw_(st.integers(1, 2))]
    if draw_(st.integers(0, 2)) == 0:
        peers = Tier(name="peers", seconds_per_token=2.9e-3, latency=4.3e-3, peers=True)
        tiers = (peers, *tiers) if draw_(st.booleans()) else (*tiers, peers)
    gap = draw_(st.sampled_from((0.0, 0.011, 0.3)))
    rng = np.random.default_rng(draw_(st.integers(0, 10**6)))
    heads = tree.heads
    arrivals: Arrivals = Arrivals(
        kind="trace",
        times=np.cumsum(rng.exponential(gap, heads)) if gap else np.zeros(heads),
        cap=draw_(st.sampled_from((0, 0, 3))),
    )
    if not lane.async_scheduling and draw_(st.integers(0, 3)) == 0:
        # a client that thinks comes back at a later boundary, but for rounding: two steps early
        # or late where steps are formed ahead
        arrivals = Arrivals(kind="closed", concurrency=4, num_prompts=n, think=0.0213)
    shape: dict[str, Any] = {
        "lengths": ANY,
        "arrivals": arrivals,
        "routing": draw_(st.sampled_from(ROUTINGS)),
        "caching": Caching(sharing=sharing, tiers=tiers),
    }
    replicas = draw_(st.sampled_from((1, 2, 3)))
    system: System = Collocated(lane=lane, replicas=replicas, **shape)
    if draw_(st.integers(0, 3)) == 0:
        shape["routing"] = draw_(st.sampled_from(("random", "least_outstanding")))
        lane = replace(lane, async_scheduling=False)  # the caches are the prefill lanes' alone
        system = Disaggregated(
            prefill=lane,
            prefill_replicas=replicas,
            decode=lane,
            decode_replicas=2,
            transfer=Transfer(latency=2.718e-3),  # nothing at one instant but for rounding
            **shape,
        )
    return system, Requests(input_len=prompt, output_len=output, tree=tree)


def sessions_of(tree: PrefixTree) -> Any:
    return naive.Sessions(
        *(getattr(tree, f).tolist() for f in ("parent", "end", "tip", "own", "key", "follows")),
        pause=tree.pause.tolist(),
    )


def compare(system: System, work: Requests, seed: int = 3) -> dict[str, int]:
    tree = work.tree
    assert tree is not None
    n = len(work)
    got = simulate(system, seed=seed, given=work)
    scheduled = np.zeros(tree.heads)
    if system.arrivals.kind == "trace":
        scheduled = system.arrivals.times - system.arrivals.times[0]
    want = naive.run(
        system,
        np.asarray(work.input_len),
        np.asarray(work.output_len),
        np.zeros(n, dtype=int),
        scheduled,
        stream(seed, ROUTES).random((n, 2)),
        stream(seed, BACK_ROUTES).random((n, 2)),
        sessions_of(tree),
    )
    sent = ~np.isnan(want.arrival)
    late = np.where(sent, want.arrival, np.nanmax(want.arrival))
    order = np.lexsort((np.arange(n), late, ~sent))
    if tree.heads == n:
        order = np.arange(n)
    np.testing.assert_array_equal(got.input_len, np.asarray(work.input_len)[order])
    np.testing.assert_array_equal(got.cached, want.hit[order])
    np.testing.assert_array_equal(got.preemptions, want.evictions[order])
    np.testing.assert_array_equal(got.replica, want.replica[order])
    for name, other in (("first_token", want.first), ("last_token", want.last)):
        np.testing.assert_allclose(getattr(got, name), other[order], rtol=0, atol=1e-9)
    for use, servers in zip(got.pools, want.pools, strict=True):
        assert [s.steps for s in servers] == use.steps.tolist()
    return {
        "evicted": int(got.preemptions.sum() > 0),
        "hit": int((got.cached > 0).any()),
        "loaded": int(sum(got.loaded) > 0),
        "followed": int(tree.heads < n),
        "refused": int(got.refused.any() and not got.refused.all()),
    }


def test_segments_equal_naive_blocks() -> None:
    seen: dict[str, int] = {}

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(cases())
    def check(case: tuple[System, Requests]) -> None:
        for name, count in compare(*case).items():
            seen[name] = seen.get(name, 0) + count

    check()
    assert min(seen.values()) >= 4, f"the cases must show all of it: {seen}"
