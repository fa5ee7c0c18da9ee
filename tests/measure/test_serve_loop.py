"""The serving loop: the same queue as the simulator's, and a log that the readers take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.errors import InputError
from bestserve.measure.bench_log import bench_log
from bestserve.measure.loop_check import (
    comparison,
    fit_steps,
    loop_step_time,
    measured,
    simulated,
)
from bestserve.measure.serve_loop import Limits, Request, Run, VirtualExecutor, serve
from bestserve.models.step.step_time import StepTime

STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.7e-9, k=0.049e-6, a_seq=35e-6)


def drawn(n: int, rate: float, seed: int = 0) -> tuple[list[Request], list[float]]:
    random = np.random.default_rng(seed)
    pairs = zip(random.geometric(1 / 300, n), random.geometric(1 / 40, n), strict=True)
    return (
        [Request(int(i), int(o)) for i, o in pairs],
        np.cumsum(random.exponential(1 / rate, n)).tolist(),
    )


def run(concurrency: int = 0, rate: float = 20.0, n: int = 150, limits: Any = None) -> Run:
    requests, arrivals = drawn(n, rate)
    return serve(
        VirtualExecutor(STEP),
        requests,
        limits or Limits(16, 256),
        arrivals=None if concurrency else arrivals,
        concurrency=concurrency,
    )


@pytest.mark.parametrize("limits", [Limits(16, 256), Limits(4, 64), Limits(64, 4096), Limits(8, 8)])
@pytest.mark.parametrize("concurrency", [0, 1, 12])
def test_the_simulator_serves_the_same_requests_at_the_same_times(
    limits: Limits, concurrency: int
) -> None:
    # Two programs that share the step time and nothing else; slots and budget bind in some.
    found = run(concurrency, limits=limits)
    for ours, theirs in zip(
        measured(found), simulated(found, STEP, limits, concurrency), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-9)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=12),
    seqs=st.integers(1, 5),
    tokens=st.integers(5, 40),
)
@settings(max_examples=40, deadline=None)
def test_every_token_is_processed_once(
    lengths: list[tuple[int, int]], seqs: int, tokens: int
) -> None:
    requests = [Request(i, o) for i, o in lengths]
    found = serve(VirtualExecutor(STEP), requests, Limits(seqs, tokens), concurrency=3)
    assert [s.request for s in found.served] == requests
    assert all(len(s.times) == s.request.output_len for s in found.served)
    # Each request processes its prompt and all but the last of its own tokens.
    assert sum(s.tokens for s in found.steps) == sum(i + o - 1 for i, o in lengths)
    assert sum(s.pairs for s in found.steps) == pytest.approx(sum(i**2 / 2 for i, _ in lengths))
    assert all(s.tokens <= tokens and s.sequences <= seqs for s in found.steps)


def test_a_lone_request_takes_its_prompt_and_its_decodes() -> None:
    found = serve(VirtualExecutor(STEP), [Request(100, 3)], Limits(4, 60), arrivals=[1.0])
    first = STEP(60, 60**2 / 2, 0, 1) + STEP(40, 40 * 60 + 40**2 / 2, 0, 1)
    assert found.served[0].ttft == pytest.approx(first)
    assert found.served[0].itls == pytest.approx([STEP(1, 0, 101, 1), STEP(1, 0, 102, 1)])


def test_step_time_is_recovered_from_the_steps_of_a_run() -> None:
    found = run(12)
    fit = fit_steps(found.steps)
    assert fit is not None
    step = loop_step_time(fit, found.steps)
    for name in ("w", "c", "e", "a", "k", "a_seq"):
        assert getattr(step, name) == pytest.approx(getattr(STEP, name), rel=1e-3), name
    rows = comparison("open", run(), step, Limits(16, 256))
    assert {r["statistic"] for r in rows} == {"mean", "p50", "p90", "p99"}
    assert max(abs(r["error_percent"]) for r in rows) < 0.1
    assert fit_steps(found.steps[:3]) is None


def test_the_sum_of_the_steps_is_kept_when_single_steps_are_disturbed() -> None:
    found = run(12)
    random = np.random.default_rng(0)
    import dataclasses

    steps = [
        dataclasses.replace(s, seconds=s.seconds * (5.0 if random.random() < 0.05 else 1.0))
        for s in found.steps
    ]
    fit = fit_steps(steps)
    assert fit is not None
    step = loop_step_time(fit, steps)
    total = sum(step(s.tokens, s.pairs, s.context, s.sequences, s.prefill) for s in steps)
    assert total == pytest.approx(sum(s.seconds for s in steps), rel=1e-9)


def test_the_log_is_read_as_one_of_vllm(tmp_path: Path) -> None:
    from bestserve.readers.logs import read_log

    found = run(n=60)
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(bench_log(found, model="m", label="test", request_rate=20.0)))
    (row,) = read_log(path).rows
    ttft, tpot = measured(found)
    assert row.ttft_mean_ms == pytest.approx(1e3 * ttft.mean(), rel=1e-6)
    assert row.tpot_mean_ms == pytest.approx(1e3 * np.nanmean(tpot), rel=1e-6)
    assert row.ttft_p90_ms == pytest.approx(1e3 * np.percentile(ttft, 90), rel=1e-6)
    assert (row.request_rate, row.num_prompts) == (20.0, 60)


def test_open_and_closed_loops_exclude_each_other() -> None:
    executor, requests = VirtualExecutor(STEP), [Request(1, 1)]
    with pytest.raises(InputError, match="either arrivals or a concurrency"):
        serve(executor, requests, Limits(1, 8))
    with pytest.raises(InputError, match="either arrivals or a concurrency"):
        serve(executor, requests, Limits(1, 8), arrivals=[0.0], concurrency=1)
    with pytest.raises(InputError, match="2 arrivals for 1 requests"):
        serve(executor, requests, Limits(1, 8), arrivals=[0.0, 1.0])
