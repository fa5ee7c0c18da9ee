"""Campaigns survive interruption, keep to their time and refuse foreign journals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bestserve.errors import DataError, InputError
from bestserve.measure.campaign import run
from bestserve.measure.grid import KINDS, SELF_TEST, Grid, Point, coarse_first, point, points
from bestserve.measure.journal import Journal, read_journal
from bestserve.measure.shapes import LayerShape

SHAPE = LayerShape(hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=96)
HEADER = {"device": "a", "driver": "1", "versions": {}, "model": "m", "tp": 1, "fmt": "bf16"}
POINTS = [point("norm", m=m) for m in range(6)]


class Counting:
    """Measures a point in one second and fails at a chosen one."""

    def __init__(self, fails_at: int = -1) -> None:
        self.seen: list[str] = []
        self.fails_at = fails_at
        self.now = 0.0

    def measure(self, point: Point) -> dict[str, Any]:
        if len(self.seen) == self.fails_at:
            raise KeyboardInterrupt
        self.seen.append(point.key)
        self.now += 1.0
        return {"key": point.key, "kind": point.kind, "median_s": 1e-6}


def test_an_interrupted_campaign_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first = Counting(fails_at=4)
    with pytest.raises(KeyboardInterrupt):
        run(POINTS, first, Journal(path, HEADER), time_budget=100.0)
    second = Counting()
    outcome = run(POINTS, second, Journal(path, HEADER), time_budget=100.0)
    assert second.seen == [p.key for p in POINTS[4:]]
    assert (outcome.measured, outcome.resumed, outcome.left) == (2, 4, 0)
    assert [r["key"] for r in outcome.rows] == [p.key for p in POINTS]
    third = run(POINTS, Counting(), Journal(path, HEADER), time_budget=100.0)
    assert (third.measured, third.resumed) == (0, 6)


def test_a_line_cut_off_by_a_crash_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    run(POINTS, Counting(), Journal(path, HEADER), time_budget=100.0)
    whole = path.read_text()
    path.write_text(whole[:-30])
    again = Counting()
    run(POINTS, again, Journal(path, HEADER), time_budget=100.0)
    assert again.seen == [POINTS[-1].key]
    assert path.read_text() == whole


def test_time_budget_is_kept_and_what_is_left_is_said() -> None:
    counting = Counting()
    outcome = run(
        POINTS, counting, Journal(None, HEADER), time_budget=2.5, clock=lambda: counting.now
    )
    assert (outcome.measured, outcome.left) == (3, 3)


def test_a_journal_of_another_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, HEADER)
    with pytest.raises(InputError, match="measured with driver = 1, now it is 2"):
        Journal(path, {**HEADER, "driver": "2"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no header"),
        ("{}\n", "no header"),
        ('{"journal": 1}\nnonsense\n{"key": "a"}\n', "line 2 is no JSON"),
        ('{"journal": 1}\n[1]\n', "line 2 is no measured point"),
    ],
)
def test_files_that_are_no_journals_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=reason):
        read_journal(path)
    with pytest.raises(DataError, match="no such file"):
        read_journal(tmp_path / "absent")


def test_points_are_unique_and_every_kind_comes_early() -> None:
    for grid in (SELF_TEST, Grid()):
        todo = points(SHAPE, grid, gpus=8)
        assert len({p.key for p in todo}) == len(todo)
        assert {p.kind for p in todo} == set(KINDS)
        assert {p.kind for p in todo[: len(todo) // 2]} == set(KINDS)
    assert not [p for p in points(SHAPE, Grid(), gpus=1) if p.kind == "all_reduce"]
    assert all(b * c <= Grid().kv_tokens for b, c in Grid().decodes())


def test_coarse_first_is_a_permutation_with_both_ends_first() -> None:
    order = coarse_first(POINTS)
    assert order[:2] == [POINTS[0], POINTS[-1]]
    assert sorted(p.key for p in order) == sorted(p.key for p in POINTS)


def test_rows_are_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    run(POINTS, Counting(), Journal(path, HEADER), time_budget=100.0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["journal"] == 1
    assert lines[1]["kind"] == "norm"
