"""Drive HiGHS on the matrices that cvxpy made: starts, bounds, cut-offs, interrupts.

cvxpy exposes neither a start for the first solve nor the bound during it, and reports a time
limit without incumbent as a vector of zeros. Here a point is a solution only when HiGHS says it
holds a feasible one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.host.stdout import nothing_printed

BETWEEN_REPORTS = 0.25
"""Seconds between two reports of progress of one solve."""


@dataclass(frozen=True, slots=True)
class LinearModel:
    """minimise cost·z subject to A z ≤ upper, low ≤ z ≤ high, z integer where flagged.

    matrix : csc [rows, columns]; upper [rows]; cost, low, high, integer [columns]
    """

    cost: Floats
    matrix: Any
    upper: Floats
    low: Floats
    high: Floats
    integer: Bools

    def relaxed(self) -> LinearModel:
        """Return the linear relaxation."""
        return replace(self, integer=np.zeros_like(self.integer))

    def restricted(self, keep: Ints) -> LinearModel:
        """Return the model on the columns `keep`; all other variables are 0."""
        return LinearModel(
            self.cost[keep],
            self.matrix[:, keep],
            self.upper,
            self.low[keep],
            self.high[keep],
            self.integer[keep],
        )

    def with_cutoff(self, most: float) -> LinearModel:
        """Return the model with one more row: cost·z ≤ most."""
        import scipy.sparse as sp

        row = sp.csc_array(self.cost[None, :])
        return replace(
            self,
            matrix=sp.vstack([self.matrix, row], format="csc"),
            upper=np.append(self.upper, most),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How HiGHS searches. `gap` is relative, `nodes` None: no limit, `seconds` wall clock.

    `presolve` is switched off to confirm a claim of infeasibility by another way.
    """

    seconds: float = float("inf")
    gap: float = 0.0
    nodes: int | None = None
    threads: int = 1
    seed: int = 0
    presolve: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one solve gave: `point` is None unless HiGHS holds a feasible one.

    bound is a valid lower bound of the minimum (−inf if unknown; inf if infeasible).
    """

    point: Floats | None
    value: float
    bound: float
    infeasible: bool
    finished: bool
    nodes: int
    reduced_costs: Floats
    duals: Floats


class Stop:
    """Asked to stop: by the caller, by an interrupt from the keyboard, or by a deadline."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self.began = time.perf_counter()
        self.seconds = seconds
        self.event = threading.Event()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.began

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.seconds - self.elapsed)

    @property
    def now(self) -> bool:
        """Whether to stop now."""
        return self.event.is_set() or self.elapsed >= self.seconds


Watch = Callable[[float, float], None]
"""Told (incumbent value, bound) of the running solve, minimisation form."""


def solve(
    model: LinearModel,
    options: Options,
    *,
    start: Floats | None = None,
    stop: Stop | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Minimise `model`; keep the best point found when stopped."""
    import highspy

    stop = stop or Stop()
    columns, is_mip = model.cost.size, bool(model.integer.any())
    if columns == 0:
        feasible = bool(np.all(model.upper >= -1e-9))
        value = 0.0 if feasible else np.inf
        empty = np.zeros(0)
        point = empty if feasible else None
        return Outcome(point, value, value, not feasible, True, 0, empty, empty)
    highs = load(model, options, min(options.seconds, stop.left))
    if start is not None and is_mip:
        solution = highspy.HighsSolution()
        solution.col_value = start.tolist()
        highs.setSolution(solution)
    _listen(highs, stop, watch)
    status = _run(highs, stop)
    if status == highspy.HighsStatus.kError:
        # The first run of a process fixes the thread count of HiGHS's scheduler; a later
        # different one makes run() fail. Start a new scheduler and run again.
        highspy.Highs.resetGlobalScheduler(True)
        status = _run(highs, stop)
        if status == highspy.HighsStatus.kError:
            raise RuntimeError(f"HiGHS failed: {highs.getModelStatus()}")
    return _outcome(highs, is_mip)


def load(model: LinearModel, options: Options, seconds: float) -> Any:
    """Return a Highs object that holds the model."""
    import highspy

    with nothing_printed():  # its banner, before any option can be set
        highs = highspy.Highs()
    highs.silent()
    for name, value in (
        ("threads", options.threads),
        ("random_seed", options.seed),
        ("mip_rel_gap", options.gap),
        ("mip_abs_gap", 1e-9),
        ("presolve", "choose" if options.presolve else "off"),
    ):
        highs.setOptionValue(name, value)
    if np.isfinite(seconds):
        highs.setOptionValue("time_limit", max(seconds, 1e-3))
    if options.nodes is not None:
        highs.setOptionValue("mip_max_nodes", options.nodes)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = model.cost.size, model.upper.size
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = model.cost, model.low, model.high
    lp.row_lower_ = np.full(model.upper.size, -highspy.kHighsInf)
    lp.row_upper_ = model.upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.num_col_, lp.a_matrix_.num_row_ = lp.num_col_, lp.num_row_
    lp.a_matrix_.start_ = model.matrix.indptr
    lp.a_matrix_.index_ = model.matrix.indices
    lp.a_matrix_.value_ = model.matrix.data
    if model.integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(flag)] for flag in model.integer]
    if highs.passModel(lp) == highspy.HighsStatus.kError:
        raise RuntimeError("HiGHS refuses the model")
    return highs


class LiveRelaxation:
    """A relaxation that stays loaded, so that added rows are solved from the last basis."""

    def __init__(self, model: LinearModel, options: Options) -> None:
        self.model, self.options = model, options
        self.highs = load(model.relaxed(), options, float("inf"))

    def add(self, rows: tuple[Any, Floats], seconds: float) -> Outcome:
        """Add rows (matrix, upper) and solve again within `seconds`."""
        import scipy.sparse as sp

        matrix, upper = rows
        self.model = replace(
            self.model,
            matrix=sp.vstack([self.model.matrix, matrix], format="csc"),
            upper=np.append(self.model.upper, upper),
        )
        by_row = matrix.tocsr()
        below = np.full(upper.size, -np.inf)
        self.highs.addRows(
            upper.size,
            below,
            upper,
            by_row.nnz,
            by_row.indptr[:-1].astype(np.int32),
            by_row.indices.astype(np.int32),
            by_row.data,
        )
        self.highs.setOptionValue("time_limit", self.highs.getRunTime() + max(seconds, 0.1))
        if _run(self.highs, Stop()) == _error():
            raise RuntimeError("HiGHS failed on a relaxation with cuts")
        return _outcome(self.highs, False)


def _error() -> Any:
    """Return the status of HiGHS that means failure."""
    import highspy

    return highspy.HighsStatus.kError


def _listen(highs: Any, stop: Stop, watch: Watch | None) -> None:
    """Let HiGHS ask whether to stop, and tell how far it is."""

    told = [time.perf_counter()]

    def interrupt(event: Any) -> None:
        if stop.event.is_set():
            event.interrupt()

    def check(event: Any) -> None:
        # The callback for logging is silent when the log is: this one carries the same figures.
        if watch is not None and time.perf_counter() - told[0] > BETWEEN_REPORTS:
            told[0] = time.perf_counter()
            watch(event.data_out.mip_primal_bound, event.data_out.mip_dual_bound)
        interrupt(event)

    highs.cbMipInterrupt += check
    highs.cbSimplexInterrupt += interrupt


def _run(highs: Any, stop: Stop) -> Any:
    """Run HiGHS in a thread, so that an interrupt from the keyboard reaches us meanwhile."""
    result: list[Any] = []
    done = threading.Event()

    def work() -> None:
        try:
            result.append(highs.run())
        finally:
            done.set()

    threading.Thread(target=work, daemon=True).start()
    # Not join(): interrupted, it takes a running thread for a stopped one (Python 3.11).
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt:
            stop.event.set()
    return result[0]


def _outcome(highs: Any, is_mip: bool) -> Outcome:
    """Read back what HiGHS holds."""
    import highspy

    info, status = highs.getInfo(), highs.getModelStatus()
    kinds = highspy.HighsModelStatus
    solution = highs.getSolution()
    infeasible = status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible)
    finished = status in (kinds.kOptimal, kinds.kInfeasible, kinds.kUnboundedOrInfeasible)
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    has_point = feasible and not infeasible and (is_mip or status == kinds.kOptimal)
    value = float(info.objective_function_value) if has_point else np.inf
    if infeasible:
        bound = np.inf
    elif is_mip:
        bound = float(info.mip_dual_bound)
    else:
        bound = value if has_point else -np.inf
    empty = np.zeros(0)
    return Outcome(
        point=np.array(solution.col_value) if has_point else None,
        value=value,
        bound=bound,
        infeasible=infeasible,
        finished=finished,
        nodes=int(info.mip_node_count) if is_mip else 0,
        reduced_costs=empty if is_mip else np.array(solution.col_dual),
        duals=empty if is_mip else np.array(solution.row_dual),
    )
