"""An interrupted accuracy run goes on where it stopped, and not with other code or data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bestserve.readers.tidy import TidyRow
from bestserve.validation.replay import prepare

Make = Callable[..., TidyRow]


@pytest.fixture(scope="module")
def parts(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module that keeps parts."""
    return script("validation/accuracy_parts.py")


@pytest.fixture(scope="module")
def folds(script: Callable[[str], ModuleType], parts: ModuleType) -> ModuleType:
    """The module that deals folds."""
    return script("validation/accuracy_folds.py")


def test_a_part_is_computed_once(parts: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("a")
    done: list[int] = []

    def work(x: int) -> int:
        done.append(x)
        return 2 * x

    first = parts.Parts.beside(tmp_path / "parts", [source])
    assert first.kept("one", work, 3) == 6
    assert parts.Parts.beside(tmp_path / "parts", [source]).kept("one", work, 3) == 6
    assert done == [3]
    source.write_text("b")
    assert parts.Parts.beside(tmp_path / "parts", [source]).kept("one", work, 4) == 8
    assert done == [3, 4]
    first.drop()
    assert not first.folder.exists()


def test_no_row_is_in_the_fit_of_its_own_suite(folds: ModuleType, make: Make) -> None:
    rows = [prepare(make(source=f"suite {n % 3}", concurrency=n + 1, id=f"r{n}")) for n in range(9)]
    dealt = folds.folds_of(rows, folds.suite_of_row, len(rows))
    assert len(dealt) == 3
    assert sorted(r.row.id for fold in dealt for r in fold.test) == sorted(r.row.id for r in rows)
    for fold in dealt:
        own = {folds.suite_of_row(r) for r in fold.test}
        assert own.isdisjoint(folds.suite_of_row(r) for r in fold.chosen)
        assert fold.training_rows == 6


def test_open_loops_teach_only_where_closed_ones_are_few(folds: ModuleType, make: Make) -> None:
    closed = [prepare(make(source="a", concurrency=n + 1, id=f"c{n}")) for n in range(2)]
    opened = [
        prepare(make(source="a", id=f"o{n}", concurrency=None, request_rate=1.0)) for n in range(5)
    ]
    assert folds.teaching(closed + opened[:4]) == closed
    assert folds.teaching(closed + opened) == closed + opened
