"""The committed accuracy figures: texts follow from the summary, claims from the figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bestserve.answers.intervals import FAMILIES
from bestserve.answers.residuals import RESIDUAL
from bestserve.validation.compare import validate


@pytest.fixture(scope="module")
def texts(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module that writes the texts; it lives beside the evidence, not in the package."""
    script("validation/accuracy_text.py")
    return script("validation/accuracy_report.py")


@pytest.fixture(scope="module")
def summary(root: Path) -> dict[str, Any]:
    """The committed figures."""
    found: dict[str, Any] = json.loads((root / "validation" / "summary.json").read_text("utf-8"))
    return found


def test_headline_and_report_follow_from_the_summary(
    root: Path, texts: ModuleType, summary: dict[str, Any]
) -> None:
    folder = root / "validation"
    assert (folder / "headline.md").read_text("utf-8") == texts.headline(summary)
    assert (folder / "report.md").read_text("utf-8") == texts.report(summary)


def test_the_readme_shows_the_current_headline(root: Path) -> None:
    table = (root / "validation" / "headline.md").read_text("utf-8").split("\n\n")[0]
    readme = (root / "README.md").read_text("utf-8")
    if "@ACCURACY@" in readme:
        pytest.skip("README is a template: its accuracy table is not filled in yet")
    assert table in readme, "README's accuracy table is stale: copy validation/headline.md"


def test_intervals_use_the_committed_residuals(summary: dict[str, Any]) -> None:
    for (kind, sort), values in RESIDUAL.items():
        for family, value in zip(FAMILIES, values, strict=True):
            assert summary["residuals"][f"{kind}/{sort}/{family}"] == value


def test_claims_hold_in_the_committed_figures(summary: dict[str, Any]) -> None:
    dense = summary["suite_left_out"]["dense, closed loop"]
    assert dense["tpot"]["median"] < 0.07
    assert dense["ttft"]["median"] < 0.17
    moe = summary["suite_left_out"]["MoE, closed loop"]
    assert moe["ttft"]["median"] < 0.30
    assert summary["predicted"] >= 0.9 * summary["rows"]
    kinds = [name for name, entry in summary["suite_left_out"].items()
             if entry["n"] >= 30 and name != "behind a prefix cache"]  # fmt: skip
    for name in (*kinds, "all"):
        assert 0.85 <= summary["coverage"][name] <= 0.95, name
    for size in ("3", "6"):
        found = summary["few_shot"][size]
        assert found["tpot_after"] < found["tpot_before"]


@pytest.mark.slow
def test_measured_rows_beside_the_checkout(shared: Path) -> None:
    """The whole development file: how many rows, and how well, as the README says."""
    path = shared / "measured" / "measured_dev.csv"
    if not path.is_file():
        pytest.skip(f"needs {path.name} in the folder of measurements")
    answer = validate(path, with_intervals=False)
    assert answer.predicted >= 0.85 * len(answer.rows)
    dense = [r for r in answer.rows if r.regime == "closed" and not r.moe and r.predicted]
    tpot = sorted(abs(p[0] / p[1] - 1) for r in dense if (p := r.headline("tpot")))
    ttft = sorted(abs(p[0] / p[1] - 1) for r in dense if (p := r.headline("ttft")))
    assert tpot[len(tpot) // 2] < 0.06
    assert ttft[len(ttft) // 2] < 0.15
