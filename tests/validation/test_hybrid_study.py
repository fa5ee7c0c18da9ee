"""The study of hybrids: its published result recomputed at one point, and its agreement at one."""

from __future__ import annotations

import re

import pytest


@pytest.fixture(scope="module")
def study(script):
    return script("validation/hybrid.py")


def test_a_hybrid_still_wins_between_the_extremes(study) -> None:
    contest = study.Contest("meta-llama/Llama-3.1-70B", 4, 4, 1500)
    contest.family = {
        "collocated": ["4m-tp4-tokens256", "4m-tp4-tokens512"],
        "disaggregated": ["3p-tp4-tokens2048+1d-tp4", "2p-tp4+2d-tp4"],
        "hybrid": ["2p-tp4-tokens2048+2d-tp4-tokens256-prefill"],
    }.get
    target = contest.target(*study.PATH[2])
    found = {layout: contest.best(layout, target, 14.0).rate for layout in ("collocated", "hybrid")}
    found["disaggregated"] = contest.best("disaggregated", target, 14.0).rate
    assert found["hybrid"] > 1.1 * max(found["collocated"], found["disaggregated"])


def test_formulas_still_agree(study) -> None:
    (system, load), *_ = study.settings(1, 4242)
    found = study.agree(system, load, 20_000)
    assert abs(found.ttft[1]) < 0.08
    assert abs(found.tpot[1]) < 0.05
    assert abs(found.joint) < 0.04


def test_the_page_has_the_papers_order(root) -> None:
    """Collocated first, hybrids between, disaggregated at last: in every setting of the page."""
    page = (root / "validation" / "hybrid.md").read_text("utf-8")
    rows = re.findall(r"^\| (\S+ tp\d), (\d+) \|.*\| ([\d.]+) ± [\d.]+ \|$", page, re.M)
    settings: dict[tuple[str, str], list[float]] = {}
    for name, instances, ratio in rows:
        settings.setdefault((name, instances), []).append(float(ratio))
    assert len(settings) == 9
    for ratios in settings.values():
        assert ratios[0] < 1.0
        assert min(ratios[1:4]) > 1.0
        assert ratios[5] < max(ratios[1:4])
