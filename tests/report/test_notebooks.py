"""The example notebooks run from top to bottom, and what they show is what running them gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "examples" / "notebooks"


@pytest.fixture(scope="module")
def executor(script):
    return script("examples/notebooks/execute.py")


def outputs(notebook) -> list[list[str]]:
    """Return the kinds of output of each code cell, and the columns of its table."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            kinds = [o["output_type"] for o in cell["outputs"]]
            tables = ["".join(o.get("data", {}).get("text/html", [])) for o in cell["outputs"]]
            found.append([*kinds, *(t.split("<tbody>")[0] for t in tables)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook_runs_and_shows_what_it_says(executor, path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    again = executor.executed(stored)
    assert outputs(again) == outputs(stored)
    assert sum(len(o) > 0 for o in outputs(stored)) >= 2
    ids = [c["id"] for c in stored["cells"]]
    assert len(ids) == len(set(ids))
    assert stored["nbformat"] == 4


def test_there_are_three_notebooks():
    names = {p.stem for p in NOTEBOOKS.glob("*.ipynb")}
    assert names == {"size_a_deployment", "compare_hardware", "validate_a_log"}


def test_a_cell_s_prints_and_last_value_are_its_outputs(executor):
    namespace: dict[str, object] = {}
    printed, value = executor.run_cell("x = 2\nprint('two')\nx * 21", namespace, 1)
    assert printed["text"] == ["two\n"]
    assert value["data"] == {"text/plain": ["42"]}
    assert executor.run_cell("y = x", namespace, 2) == []
    with pytest.raises(NameError):
        executor.run_cell("missing", namespace, 3)
