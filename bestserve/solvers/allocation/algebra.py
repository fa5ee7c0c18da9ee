"""A linear programme as named blocks, and its way through cvxpy to the matrices HiGHS takes.

The formulation is written once, as sparse blocks over named variables. `problem` makes the cvxpy
problem of it; `compile_model` asks cvxpy for the standard form, so that whatever drives HiGHS
directly (starts, windows, cut-offs) solves the very problem that cvxpy states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.solvers.allocation.highs import LinearModel

Kind = Literal["continuous", "binary", "integer"]


@dataclass(frozen=True, slots=True)
class Variable:
    """A vector of `high.size` variables between 0 and `high`."""

    high: Floats
    kind: Kind = "continuous"


@dataclass(frozen=True, slots=True)
class Rows:
    """Σ matrix @ variable ≤ upper, one label a row; `terms` maps variable names to matrices."""

    name: str
    terms: Mapping[str, Any]
    upper: Floats
    labels: tuple[str, ...]


@dataclass(slots=True)
class Algebra:
    """minimise Σ cost·variable subject to `rows`, in the order they were added."""

    variables: dict[str, Variable] = field(default_factory=dict)
    rows: list[Rows] = field(default_factory=list)
    cost: dict[str, Floats] = field(default_factory=dict)

    def add(
        self, name: str, terms: Mapping[str, Any], upper: Floats, labels: tuple[str, ...]
    ) -> None:
        """Add a block of rows; variables without columns and empty blocks are left out."""
        used = {v: m for v, m in terms.items() if self.variables[v].high.size}
        if upper.size and used:
            self.rows.append(Rows(name, used, np.asarray(upper, dtype=np.float64), labels))

    def row_slice(self, name: str) -> slice:
        """Return where the block `name` lies among all rows."""
        begin = 0
        for block in self.rows:
            if block.name == name:
                return slice(begin, begin + block.upper.size)
            begin += block.upper.size
        return slice(0, 0)


def problem(algebra: Algebra) -> tuple[Any, dict[str, Any]]:
    """Return the cvxpy problem and its variables by name."""
    import cvxpy as cp

    variables = {
        name: cp.Variable(
            v.high.size,
            name=name,
            boolean=v.kind == "binary",
            integer=v.kind == "integer",
            bounds=None if v.kind == "binary" else [np.zeros_like(v.high), v.high],
        )
        for name, v in algebra.variables.items()
        if v.high.size
    }
    objective = sum(c @ variables[v] for v, c in algebra.cost.items() if v in variables)
    constraints = [
        sum(m @ variables[v] for v, m in rows.terms.items()) <= rows.upper for rows in algebra.rows
    ]
    return cp.Problem(cp.Minimize(objective), constraints), variables


@dataclass(frozen=True, slots=True)
class Compiled:
    """The model HiGHS takes, and where each variable's columns lie in it."""

    model: LinearModel
    columns: Mapping[str, slice]


def compile_model(algebra: Algebra) -> Compiled:
    """Return cvxpy's standard form of the algebra; rows keep the order of the blocks."""
    import cvxpy as cp

    stated, variables = problem(algebra)
    data, _, _ = stated.get_problem_data(cp.HIGHS)
    start = data["param_prob"].var_id_to_col
    columns = {name: slice(start[v.id], start[v.id] + v.size) for name, v in variables.items()}
    size = data["c"].size
    low, high = np.zeros(size), np.full(size, np.inf)
    integer = np.zeros(size, dtype=bool)
    for name, place in columns.items():
        high[place] = algebra.variables[name].high
        integer[place] = algebra.variables[name].kind != "continuous"
    model = LinearModel(
        cost=np.asarray(data["c"], dtype=np.float64),
        matrix=data["A"].tocsc(),
        upper=np.asarray(data["b"], dtype=np.float64),
        low=low,
        high=high,
        integer=integer,
    )
    return Compiled(model, columns)


def sparse(rows: Ints, columns: Ints, values: Floats, shape: tuple[int, int]) -> Any:
    """Return a sparse matrix from triplets."""
    import scipy.sparse as sp

    return sp.csr_array((values, (rows, columns)), shape=shape)


def sparse_of(dense: Any) -> Any:
    """Return a dense matrix as a sparse one."""
    import scipy.sparse as sp

    return sp.csr_array(np.asarray(dense, dtype=np.float64))
