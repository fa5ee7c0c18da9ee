"""Execute the notebooks beside this file and write their outputs into them.

    python examples/notebooks/execute.py [NOTEBOOK …]

Cells run in order in one namespace, as in Jupyter, without a kernel or any dependency: what a cell
prints becomes its stream, the value of its last expression its result (with `_repr_html_`, if it
has one). The tests run every notebook this way.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with fresh outputs. Whatever a cell raises is raised."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = run_cell("".join(cell["source"]), namespace, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def run_cell(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run one cell and return its outputs in the notebook format."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"<cell {count}>", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"<cell {count}>", "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data: dict[str, Any] = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            # As the plain form of a large answer is its whole input, the short one is the table.
            html = lines(value._repr_html_())
            data = {"text/plain": [f"<{type(value).__name__}>"], "text/html": html}
        result = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
        outputs.append({**result, "data": data})
    return outputs


def lines(text: str) -> list[str]:
    """Return text as the notebook format keeps it."""
    return text.splitlines(keepends=True)


def main(names: list[str]) -> None:
    """Execute the named notebooks, or all."""
    for path in [Path(n) for n in names] or sorted(HERE.glob("*.ipynb")):
        notebook = executed(json.loads(path.read_text(encoding="utf-8")))
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
