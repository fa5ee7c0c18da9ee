"""How a client loaded the server, and the lengths it sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.readers.tidy import Regime, TidyRow
from bestserve.validation.datasets import (
    quantile_atoms,
    truncated_atoms,
    whole_atoms,
)
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.protocol import Protocol, protocol_of
from bestserve.validation.sources import suite_of

Make = Callable[..., TidyRow]


def driven(row: TidyRow) -> Protocol:
    return protocol_of(row, suite_of(row))


def test_closed_loops_send_ten_prompts_a_client_unless_stated(make: Make) -> None:
    found = driven(make())
    assert (found.arrivals.kind, found.arrivals.concurrency, found.requests) == ("closed", 8, 80)
    assert "10 prompts per client" in found.notes
    assert driven(make(num_prompts=24)).requests == 24


def test_a_burst_is_a_closed_loop_of_all_at_once(make: Make) -> None:
    row = make(regime=Regime.BURST, concurrency=None, num_prompts=100)
    found = driven(row)
    assert found.arrivals.concurrency == found.requests == 100


def test_finite_poisson_runs_keep_start_and_drain(make: Make) -> None:
    found = driven(make(request_rate=5.0, concurrency=None, num_prompts=300))
    assert (found.rate, found.requests, found.steady) == (5.0, 300, False)
    steady = driven(make(request_rate=5.0, concurrency=None))
    assert steady.steady


def test_a_cap_stays_on_an_offered_rate(make: Make) -> None:
    row = make(request_rate=50.0, concurrency=440, num_prompts=3000, arrivals="constant")
    found = driven(row)
    assert found.arrivals.cap == 440
    assert found.arrivals.scv < 0.01


def test_mlperf_runs_ten_minutes(make: Make) -> None:
    row = make(source="MLPerf Inference v4.1 closed/X", request_rate=10.0, concurrency=None)
    assert driven(row).requests == 6000


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"request_rate": None, "concurrency": None}, Outcome.LOAD_MISSING),
        ({"regime": Regime.BURST, "concurrency": None}, Outcome.LOAD_MISSING),
        ({"output_len_mean": None}, Outcome.LENGTHS_MISSING),
    ],
)
def test_what_is_not_stated_is_not_invented(
    make: Make, changes: dict[str, Any], outcome: Outcome
) -> None:
    with pytest.raises(UnpredictableError) as refusal:
        driven(make(**changes))
    assert refusal.value.outcome is outcome


def mean(atoms: tuple[Any, Any]) -> float:
    return float(atoms[0] @ atoms[1])


def test_inferencemax_draws_80_to_100_per_cent(make: Make) -> None:
    row = make(source="AIConfigurator silicon_sample (InferenceX DB dump)", input_len_asked=1024.0,
               output_len_asked=1024.0)  # fmt: skip
    lengths = driven(row).lengths
    assert lengths.inputs.min() >= 819
    assert lengths.inputs.max() <= 1024
    assert mean((lengths.inputs, lengths.input_weights)) == pytest.approx(921.5, rel=1e-3)


@given(st.floats(1.0, 1e5))
def test_whole_lengths_keep_their_mean(value: float) -> None:
    lengths, weights = whole_atoms(value)
    assert mean((lengths, weights)) == pytest.approx(value)
    assert all(float(x).is_integer() and x >= 1 for x in lengths)


def test_scaled_shapes_keep_their_means() -> None:
    shape = (0.1,) * 7 + (1.9,) * 7
    assert mean(quantile_atoms(shape, 200.0)) == pytest.approx(200.0, rel=1e-6)
    assert mean(truncated_atoms(290.0, 0.75, 1024.0)) == pytest.approx(290.0, rel=0.01)


def test_a_log_with_every_length_is_replayed_with_them(make: Make) -> None:
    from bestserve.readers.tidy import RequestLog

    log = RequestLog(input_len=np.array([10, 500, 90]), output_len=np.array([5, 7, 200]))
    lengths = driven(make(requests=log)).lengths
    assert lengths.joint
    assert lengths.inputs.tolist() == [10.0, 500.0, 90.0]
    assert lengths.outputs.tolist() == [5.0, 7.0, 200.0]


def test_stages_are_those_of_their_own_ladder(make: Make) -> None:
    ladder = {"source": "llm-d KV-cache-aware routing benchmark", "request_rate": 10.0,
              "concurrency": None, "num_prompts": None}  # fmt: skip
    one = driven(make(**ladder, dataset_or_lengths="shared_prefix: 150 groups x5"))
    assert (one.requests, one.steady) == (200, False)  # 20 seconds
    other = driven(make(**ladder, dataset_or_lengths="shared_prefix: 83 groups x3"))
    assert other.steady
