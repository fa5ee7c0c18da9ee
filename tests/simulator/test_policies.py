"""Every policy that is found: compiled loop against naive loop, models, prefill pool, lowering."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bestserve as bs
from bestserve.catalog import load_engine
from bestserve.errors import InputError, UnknownNameError
from bestserve.models import policies as known
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latency import engine_of, latency, stability_rate
from bestserve.models.policies import find_policy, policies
from bestserve.models.queues.requests import prepare
from bestserve.models.schedulers import prefill_pool
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Disaggregated, Lane, Lengths
from bestserve.simulator import Requests, simulate

# Binary fractions: sums are exact, so that both loops agree at every boundary.
STEP = StepTime(w=2.0**-8, c=2.0**-14, e=0, a=2.0**-34, k=2.0**-24, a_step=2.0**-10, a_seq=2.0**-15)
LENGTHS = Lengths(
    inputs=np.array([300.0, 900.0, 1500.0]),
    input_weights=np.array([0.5, 0.3, 0.2]),
    outputs=np.array([20.0, 80.0]),
    output_weights=np.array([0.5, 0.5]),
)
ONE_PROMPT = '''
"""One prompt a step, at most 96 of its tokens; decodes ride along."""

from bestserve.models.policies import Policy

POLICY = Policy(name="one_prompt", splits=True, rides=True, most_prompts=1, prompt_budget=96)
'''


Compare = Callable[[Any, Any], int]


@pytest.fixture(scope="module")
def equal_to_naive(script: Callable[[str], ModuleType]) -> Compare:
    compare: Compare = script("tests/simulator/test_naive_loop.py").assert_equal_to_naive
    return compare


def conforms(name: str, equal_to_naive: Compare) -> None:
    """Assert that simulator, models, pools and lowering treat a policy as it says."""
    policy = find_policy(name)
    assert policy.name == name
    lane = Lane(step=STEP, policy=name, max_num_seqs=8, max_num_batched_tokens=256)
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.integers(0, 40, 120)) * 2.0**-9
    prompts = rng.integers(1, 600, 120)
    outputs = rng.integers(1, 30, 120)
    trace = Arrivals(kind="trace", times=times)
    one = Collocated(lane=lane, replicas=1, lengths=LENGTHS, arrivals=trace)
    two = Disaggregated(
        prefill=lane,
        prefill_replicas=1,
        decode=lane,
        decode_replicas=1,
        lengths=LENGTHS,
        arrivals=trace,
    )
    for system in (one, two):
        equal_to_naive(system, (times, prompts, outputs, np.zeros(120, dtype=int)))

    engine = engine_of(dataclasses.replace(lane, max_num_batched_tokens=4096), prepare(LENGTHS))
    if policy.splits or policy.prompt_budget:
        room = policy.room(engine.lane.max_num_batched_tokens)
        assert prefill_pool.tables(engine).server.packed <= max(room, LENGTHS.inputs.max())
    open_loop = dataclasses.replace(one, arrivals=Arrivals())
    known = known_part(open_loop)
    assert known.lane.scheduling.has_formula
    assert (known.lane == open_loop.lane) == policy.has_formula
    assert np.isfinite(latency(known, 0.5 * stability_rate(known)).ttft.mean)
    if not policy.has_formula:
        with pytest.raises(InputError, match=f"no formula knows policy '{name}'"):
            latency(open_loop, 1.0)

    engine_record = dataclasses.replace(load_engine("vllm"), policy=name)
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        engine=engine_record,
        workload=bs.Workload(input_len=1000, output_len=100),
        slo=bs.SLO("ttft:2000 tpot:100"),
    )
    told = bs.predict(problem, "1m-tp1", 1.0)
    assert told.ttft is not None
    assert policy.has_formula or told.method == "simulated"
    best = bs.rank(problem).best
    assert best.goodput > 0
    assert policy.has_formula or best.method == "simulated"


@pytest.mark.parametrize("name", policies())
def test_every_policy_conforms(name: str, equal_to_naive: Compare) -> None:
    conforms(name, equal_to_naive)


@pytest.fixture
def one_prompt(tmp_path: Path) -> Iterator[str]:
    """A fourth policy: one file in a folder of its own."""
    (tmp_path / "one_prompt.py").write_text(ONE_PROMPT)
    known.__path__.append(str(tmp_path))
    policies.cache_clear()
    yield "one_prompt"
    known.__path__.remove(str(tmp_path))
    sys.modules.pop("bestserve.models.policies.one_prompt")
    policies.cache_clear()


def test_a_fourth_policy_is_one_file(one_prompt: str, equal_to_naive: Compare) -> None:
    assert one_prompt in policies()
    conforms(one_prompt, equal_to_naive)


def test_one_prompt_a_step_shows_in_its_steps(one_prompt: str) -> None:
    """Three prompts of 192 tokens that arrive together take six steps, two each."""
    lane = Lane(step=STEP, policy=one_prompt, max_num_seqs=8, max_num_batched_tokens=4096)
    times, ones = np.zeros(3), np.ones(3, dtype=int)
    system = Collocated(
        lane=lane, replicas=1, lengths=LENGTHS, arrivals=Arrivals(kind="trace", times=times)
    )
    result = simulate(system, given=Requests(input_len=192 * ones, output_len=ones))
    assert result.pools[0].steps.tolist() == [6]
    chunked = dataclasses.replace(system, lane=dataclasses.replace(lane, policy="chunked"))
    result = simulate(chunked, given=Requests(input_len=192 * ones, output_len=ones))
    assert result.pools[0].steps.tolist() == [1]


def test_an_unknown_policy_is_one_line() -> None:
    engine = dataclasses.replace(load_engine("vllm"), policy="chunkd")
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        engine=engine,
        workload=bs.Workload(input_len=1000, output_len=100),
    )
    with pytest.raises(UnknownNameError, match="unknown policy 'chunkd'; nearest: chunked") as told:
        bs.predict(problem, "1m-tp1", 1.0)
    assert "\n" not in str(told.value)


def test_only_policies_are_told_apart_by_name(root: Path) -> None:
    """Whoever compares a name knows a policy that others do not know."""
    inside = root / "bestserve" / "models" / "policies"
    quoted = [f'== "{name}"' for name in policies()] + [f'!= "{name}"' for name in policies()]
    for path in (root / "bestserve").rglob("*.py"):
        if inside not in path.parents:
            text = path.read_text()
            assert not [q for q in quoted if q in text], path
