"""The Python interface: one function a question, the same words as the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.goodput import Goodput
from bestserve.models.latency import Latencies
from bestserve.models.system import System, Target
from bestserve.results import Confidence, Prediction, Ranking, Status, Summary
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Method = Literal["auto", "analytic", "simulated"]
Progress = Callable[[str], None]

REFEREE_REQUESTS = 20_000
"""Requests per probe when a goodput is polished by simulation: about 1.5 % CoV."""


def rank(
    problem: Problem, *, verify: bool = True, progress: Progress | None = None
) -> Ranking:
    """Rank all strategies that fit the GPU budget by goodput.

    Parameters
    ----------
    problem : what to serve, on what, for whom; needs an SLO
    verify : simulate strategies whose analytic goodput carries low trust
    progress : called with a short text as the work goes on

    Raises
    ------
    InputError : no SLO, or a closed loop
    UnknownNameError, DataError : model, hardware or engine cannot be found or read

    Nothing feasible is no error: the table is empty and `rejected` says why.
    """
    from bestserve.solvers.search import rank_strategies

    return rank_strategies(problem, referee=_simulated if verify else None, progress=progress)


def predict(
    problem: Problem,
    strategy: str | Strategy,
    request_rate: float | None = None,
    *,
    method: Method = "auto",
) -> Prediction:
    """Predict TTFT, TPOT and E2EL of one strategy at one rate.

    Parameters
    ----------
    strategy : "2m-tp4", "3p2d-tp4", "3p-tp2+2d-tp4"
    request_rate : open arrivals [requests/s]; not for closed loops
    method : "auto" takes the analytic answer where it is trusted and simulates where not

    Raises InputError, InfeasibleError (the strategy cannot be built), UnknownNameError, DataError.
    An unstable queue is no error but a status.
    """
    lowered = lower(problem)
    parsed = Strategy.parse(strategy)
    rate = checked_rate(problem, request_rate)
    system = lowered.system(parsed)
    found = _analytic(system, rate) if method != "simulated" else None
    if found is None or (method == "auto" and not found.trust.high):
        found, how = simulated_latencies(system, rate), "simulated"
    else:
        how = "analytic"
    return _prediction(lowered, parsed, rate, found, how)


def goodput(problem: Problem, strategy: str | Strategy, *, method: Method = "auto") -> Goodput:
    """Return the highest rate at which a strategy meets the objectives [requests/s].

    Raises as `predict`; InputError also without an SLO.
    """
    from bestserve.models.goodput import goodput as analytic_goodput

    if problem.slo is None:
        raise InputError("goodput needs objectives; give slo, for example 'ttft:500 tpot:50'")
    system = lower(problem).system(strategy)
    target = problem.slo.target()
    if method == "simulated":
        return _simulated(system, target)
    found = analytic_goodput(system, target)
    return found if found.trust.high or method == "analytic" else _simulated(system, target)


def simulate(
    problem: Problem,
    strategy: str | Strategy,
    request_rate: float | None = None,
    *,
    requests: int = 20_000,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Simulate one strategy; returns `bestserve.simulator.SimulationResult`."""
    from bestserve.simulator import simulate as run

    rate = checked_rate(problem, request_rate)
    system = lower(problem).system(strategy)
    return run(system, rate, requests=requests, seed=seed, **options)


def checked_rate(problem: Problem, request_rate: float | None) -> float:
    """Return the rate of open arrivals, or 0 for a closed loop. Raises InputError."""
    if problem.workload.closed:
        if request_rate is not None:
            raise InputError(
                "a closed loop (max_concurrency) sets its own rate; leave request_rate out"
            )
        return 0.0
    if request_rate is None:
        raise InputError("request_rate is needed: requests per second that arrive")
    if not 0 < request_rate < float("inf"):
        raise InputError(f"request_rate = {request_rate} must be positive and finite")
    return float(request_rate)
