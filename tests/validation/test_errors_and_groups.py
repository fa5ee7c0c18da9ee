"""Error summaries, groups and the choice of a layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bestserve.validation.comparison import RowComparison, metric_summaries
from bestserve.validation.errors import relative_errors, spearman, summarise
from bestserve.validation.groups import choice_of, rate_per_gpu, summarise_groups
from bestserve.validation.outcome import Outcome

FEW = st.integers(0, 20).map(float)


@given(arrays(np.float64, (2, 12), elements=FEW))
def test_rank_correlation_is_scipys(values: Any) -> None:
    from scipy import stats

    own = spearman(values[0], values[1])
    if min(np.ptp(values[0]), np.ptp(values[1])) == 0:
        assert own is None
    else:
        assert own == pytest.approx(stats.spearmanr(values[0], values[1]).statistic, abs=1e-12)


def test_summary_of_known_errors() -> None:
    found = summarise([(1.1, 1.0), (0.8, 1.0), (3.0, 3.0), (2.0, 1.0), (1.0, 1.0)])
    assert found.median == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.0)
    assert found.p90 == pytest.approx(0.68)
    assert summarise([(1.0, 1.0)]).rank_correlation is None


def test_measured_zeros_have_no_relative_error() -> None:
    assert relative_errors({"a": 1.0, "b": 2.0}, {"a": 0.0, "b": 1.0, "c": 1.0}) == {"b": 1.0}


def row(**changes: Any) -> RowComparison:
    """A predicted row."""
    values: dict[str, Any] = {
        "id": "1", "status": Outcome.PREDICTED, "reason": "", "model": "m", "gpu": "g",
        "engine": "e", "regime": "closed", "layout": "1m-tp1", "gpus": 1, "workload": "w",
        "clients": 10, "output_len": 101.0,
        "predicted": {"ttft_mean_ms": 100.0, "tpot_mean_ms": 10.0},
        "measured": {"ttft_mean_ms": 100.0, "tpot_mean_ms": 10.0},
    }  # fmt: skip
    return RowComparison(**{**values, **changes})


def test_rate_of_a_closed_loop_by_littles_law() -> None:
    # 10 clients, each 0.1 s + 100 · 10 ms = 1.1 s per request.
    assert rate_per_gpu(row(), row().measured) == pytest.approx(10 / 1.1)
    assert rate_per_gpu(row(gpus=2), {"req_throughput": 8.0}) == 4.0
    assert rate_per_gpu(row(clients=0), row().measured) is None


def test_choice_counts_regret_of_the_predicted_best() -> None:
    slow = {"ttft_mean_ms": 200.0, "tpot_mean_ms": 20.0}
    fast = {"ttft_mean_ms": 100.0, "tpot_mean_ms": 10.0}
    right = [row(layout="a", predicted=fast, measured=fast), row(layout="b", predicted=slow,
             measured=slow)]  # fmt: skip
    wrong = [row(layout="a", predicted=fast, measured=slow, workload="v"),
             row(layout="b", predicted=slow, measured=fast, workload="v")]  # fmt: skip
    found = choice_of(right + wrong)
    assert found is not None
    assert (found.cases, found.right) == (2, 1)
    assert found.regret_max == pytest.approx(1.0)
    assert found.regret_mean == pytest.approx(0.5)
    assert choice_of(right[:1]) is None


def test_groups_leave_out_what_was_not_predicted() -> None:
    rows = [row(), row(gpu="h"), row(status=Outcome.GPU_UNKNOWN)]
    groups = summarise_groups(rows)
    assert [(g.gpu, g.n) for g in groups] == [("g", 1), ("h", 1)]


def test_medians_stand_in_for_means() -> None:
    only_median = row(predicted={"ttft_p50_ms": 90.0, "ttft_mean_ms": 95.0},
                      measured={"ttft_p50_ms": 100.0})  # fmt: skip
    found = metric_summaries([only_median])
    assert found["ttft"].bias == pytest.approx(-0.1)
    assert "tpot" not in found
