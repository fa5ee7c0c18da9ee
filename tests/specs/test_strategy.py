"""Strategies print and parse; what makes no sense is refused with an example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.errors import InputError
from bestserve.specs.strategy import Pool, Strategy

sizes = st.sampled_from([1, 2, 3, 4, 8, 16])
limits = st.none() | st.integers(1, 100_000)


@st.composite
def pools(draw, role):
    tp, pp, dp = draw(sizes), draw(sizes), draw(sizes)
    return Pool(
        role=role,
        replicas=draw(st.integers(1, 1000)),
        tp=tp,
        pp=pp,
        dp=dp,
        ep=draw(st.sampled_from([1, tp * dp])),
        max_num_seqs=draw(limits),
        max_num_batched_tokens=draw(limits),
    )


@st.composite
def hybrids(draw):
    front, back = draw(pools("p")), draw(pools("d"))
    percent = st.none() | st.integers(0, 100)
    if draw(st.booleans()):
        front = front.model_copy(update={"local": True, "local_percent": draw(percent)})
    back = back.model_copy(update={"flow_percent": draw(st.none() | st.integers(1, 99))})
    if draw(st.booleans()):
        queue, longest = draw(limits), draw(limits)
        local = {"local_percent": draw(percent), "longest_local": longest, "prefill_queue": queue}
        back = back.model_copy(update={"local": True, **local})
    return Strategy(pools=(front, back))


strategies = st.one_of(
    st.builds(lambda m: Strategy(pools=(m,)), pools("m")),
    st.builds(lambda p, d: Strategy(pools=(p, d)), pools("p"), pools("d")),
    hybrids(),
)


def test_a_hybrid_says_who_does_what():
    strategy = Strategy.parse("2p-tp4-tokens2048+2d-tp4-tokens256-prefill30-upto512-queue4-flow90")
    front, back = strategy.pools
    assert (strategy.layout, strategy.hybrid) == ("hybrid", True)
    assert (front.local, front.work, front.max_num_batched_tokens) == (False, "p", 2048)
    assert (back.local, back.work, back.max_num_batched_tokens) == (True, "m", 256)
    assert (back.local_percent, back.longest_local) == (30, 512)
    assert (back.prefill_queue, back.flow_percent) == (4, 90)
    assert Strategy.parse("1p-decode20+1d").pools[0].local_percent == 20
    assert str(Strategy.parse("2p2d-tp4-prefill")) == "2p-tp4+2d-tp4-prefill"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2m-tp4-prefill", "none of"),
        ("2p2d-tp4-prefill-prefill20", "twice"),
        ("2p2d-tp4-upto", "number"),
        ("2p2d-tp4-upto512", "-prefill"),
        ("2p2d-tp4-flow100", "flow"),
    ],
)
def test_what_is_no_hybrid_is_refused(text, why):
    with pytest.raises(InputError, match=why):
        Strategy.parse(text)


@given(strategies)
def test_strategies_round_trip(strategy):
    assert Strategy.parse(str(strategy)) == strategy


@pytest.mark.parametrize(
    ("text", "gpus", "disaggregated"),
    [
        ("2m-tp4", 8, False),
        ("3p2d-tp4", 20, True),
        ("3p-tp2+2d-tp4", 14, True),
        ("2m-tp4-pp2", 16, False),
        ("1m-tp1-dp8-ep8", 8, False),
        ("5m", 5, False),
    ],
)
def test_the_papers_notation_is_understood(text, gpus, disaggregated):
    strategy = Strategy.parse(text)
    assert strategy.gpus == gpus
    assert strategy.disaggregated is disaggregated


@pytest.mark.parametrize(
    "text",
    ["", "m", "0m-tp4", "2m-tp0", "2x-tp4", "2p-tp4", "2m2d-tp4", "2d2p-tp4", "2m-tp4-tp2",
     "2m-qq4", "1m+1m", "1p1d1m", "2m-tp4-ep3", "２m", "2m-tp" + "9" * 400],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        Strategy.parse(text)
    assert "\n" not in str(error.value)
