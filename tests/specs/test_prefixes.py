"""What prompts share, in Python, in clients' words, and drawn."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.lowering.prefixes import lower_sharing
from bestserve.models.prefix_tree import PrefixTree, draw, from_hashes, from_sessions
from bestserve.simulator import simulate

GROUPS = bs.PrefixGroups(groups=150, prefix_len=6000)


@pytest.mark.parametrize(
    "words",
    [
        {"gsp_num_groups": 150, "gsp_system_prompt_len": 6000, "gsp_question_len": 500},
        {
            "prefix_repetition_num_prefixes": 150,
            "prefix_repetition_prefix_len": 6000,
            "prefix_repetition_suffix_len": 500,
        },
        {"num_groups": 150, "system_prompt_len": 6000, "question_len": 500},
        {"prefix_groups": 150, "prefix_len": 6000, "input_len": 500},
    ],
)
def test_clients_words_are_understood(words: dict[str, int]) -> None:
    own = bs.Workload(input_len=500, output_len=200, prefixes=GROUPS)
    assert bs.Workload(**words, output_len=200) == own


def test_a_field_stated_twice_is_refused() -> None:
    with pytest.raises(InputError, match="a second time"):
        bs.Workload(random_input_len=5, input_len=7, output_len=1)
    with pytest.raises(InputError, match="give one of them"):
        bs.Workload(input_len=5, output_len=1, prefixes=GROUPS, prefix_cache_hit=0.5)


def conversation(turns: int | str = 5) -> bs.Workload:
    return bs.Workload(
        input_len="uniform(50, 150)",
        output_len=80,
        prefixes=bs.PrefixGroups(groups=2, prefix_len=1000),
        conversation=bs.Conversation(turns=turns, think_time=3, first_input_len=700),
    )


def test_a_turn_repeats_all_before_it() -> None:
    tree, prompt, output = draw(lower_sharing(conversation()), 500, np.random.default_rng(1))
    later = np.flatnonzero(tree.follows >= 0)
    before = tree.follows[later]
    assert len(later) == 400
    assert np.all(prompt[later] - prompt[before] - output[before] >= 50)
    assert np.all(tree.end[tree.tip[later]] == prompt[before] + output[before] - 1)
    assert np.all(tree.tip[later] == tree.own[before])
    assert np.all(prompt[tree.follows < 0] == 1700)
    assert tree.pause[later].mean() == pytest.approx(3, rel=0.2)


def test_lengths_of_a_conversation_are_those_of_its_prompts() -> None:
    law = lower(problem(conversation())).lengths
    # 1,000 shared, 700 first, then 180 more a turn, of five turns alike
    assert float(law.inputs @ law.input_weights) == pytest.approx(1700 + 2 * 180, rel=0.01)
    assert float(law.inputs.min()) == 1700


def problem(workload: bs.Workload, **more: object) -> bs.Problem:
    step = bs.StepTime(w=6e-3, c=26e-6, e=0, a=1e-10, k=2e-8)
    return bs.Problem(step_time=step, kv_capacity_tokens=200_000, gpus=4, workload=workload, **more)


def test_a_router_that_knows_prefixes_finds_more() -> None:
    groups = bs.Workload(input_len=500, output_len=50, prefixes=GROUPS)
    share = {}
    for routing in ("random", "session_affine", "prefix_aware"):
        system = lower(problem(groups, routing=routing)).system("4m-tp1")
        share[routing] = simulate(system, 8.0, requests=6000).hit_share
    # each lane holds 33 of 150 prefixes at most, or those of its own groups
    assert share["random"] < 0.35
    assert share["session_affine"] > 0.6
    assert share["prefix_aware"] > 0.6


def test_without_caching_nothing_is_found() -> None:
    groups = bs.Workload(input_len=500, output_len=50, prefixes=GROUPS)
    system = lower(problem(groups, enable_prefix_caching=False)).system("4m-tp1")
    result = simulate(system, 4.0, requests=500)
    assert result.hit_share == 0
    assert np.all(result.input_len == 6500)


def test_routing_by_prefix_needs_prefixes() -> None:
    plain = problem(bs.Workload(input_len=50, output_len=5), routing="prefix_aware")
    with pytest.raises(InputError, match="goes by what requests share"):
        simulate(lower(plain).system("4m-tp1"), 1.0, requests=10)


def test_an_old_view_of_the_caches_is_worse_than_a_new_one() -> None:
    groups = bs.Workload(
        input_len=300, output_len=20, prefixes=bs.PrefixGroups(groups=400, prefix_len=3000)
    )
    share = [
        simulate(
            lower(problem(groups, routing="prefix_aware", router_lag=lag)).system("4m-tp1"),
            20.0,
            requests=8000,
        ).hit_share
        for lag in (0.0, 60.0)
    ]
    assert share[0] > share[1] + 0.02


def test_a_tier_gives_back_what_the_gpu_gave_up() -> None:
    talk = bs.Workload(
        input_len=2000, output_len=50, conversation=bs.Conversation(turns=6, think_time=30)
    )
    model = {"model": "Qwen/Qwen3-8B", "hardware": "l4", "gpus": 1, "workload": talk}
    host = bs.KvTier(gigabytes=400, bandwidth=20e9)
    bare, more = (
        simulate(lower(bs.Problem(**model, kv_tiers=tiers)).system("1m-tp1"), 0.3, requests=800)
        for tiers in ((), (host,))
    )
    assert sum(more.loaded) > 0
    assert more.ttft[more.kept].mean() < 0.7 * bare.ttft[bare.kept].mean()


def test_hashes_and_sessions_make_the_same_tree() -> None:
    inputs, outputs = np.array([512, 1536, 600]), np.array([512, 10, 5])
    by_hash = from_hashes([[1], [1, 2, 3], [9]], inputs, 512)
    by_session = from_sessions(np.array([4, 4, 5]), inputs, outputs)
    assert by_hash.end[by_hash.tip[0]] == 512
    assert by_session.end[by_session.tip[1]] == 1023
    assert by_session.tip.tolist() == [-1, 0, -1]


def test_a_tree_that_contradicts_itself_is_refused() -> None:
    none = np.array([-1])
    with pytest.raises(InputError, match="names no segment"):
        PrefixTree(
            parent=np.zeros(0, dtype=int), end=np.zeros(0, dtype=int), tip=np.array([3]),
            own=none, key=none, follows=none, pause=np.zeros(1),
        )  # fmt: skip
