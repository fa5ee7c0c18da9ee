"""Elasticities of goodput, TTFT and TPOT to every figure of a problem.

Goodput λ* solves room(λ, x) = 0 for the objective that binds, so by the implicit function theorem
∂ln λ*/∂ln x = −(∂room/∂ln x) / (∂room/∂ln λ): no second search, and no tolerance of a search in
the derivative. Both partial derivatives are central differences of the analytic latencies, which
are smooth; where those are not trusted, or there are none, of simulations on common random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bestserve.analysis.exact import chained_elasticities
from bestserve.analysis.figures import Parameter
from bestserve.analysis.operating import AT_ONCE, Observer, Operating, objective_room, operate
from bestserve.analysis.parameters import at_value, parameter, parameters
from bestserve.analysis.regime import Regime, regime_of
from bestserve.analysis.results import SHOWN, Elasticity, SensitivityReport
from bestserve.answers.evaluate import ROUGH
from bestserve.answers.predict import checked_method
from bestserve.catalog.engines import SPLIT
from bestserve.errors import InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.binding import Binding
from bestserve.models.lane_arrivals import refuse_uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.system import System
from bestserve.models.token_times import Reader, Readers
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

STEP = 0.01
"""Relative difference of a figure: far above rounding, far below where curvature shows."""

SIMULATED_STEP = 0.05
"""Relative difference in simulations: common random numbers leave noise that a larger one beats."""

LOAD = 0.8
"""Share of the goodput at which latency elasticities are taken when no rate is given."""

REPLICATIONS = 6
Progress = Callable[[str], None]


def elasticities(
    problem: Problem,
    strategy: str | Strategy,
    *,
    figures: Sequence[str] | None = None,
    request_rate: float | None = None,
    method: str = "auto",
    progress: Progress | None = None,
) -> SensitivityReport:
    """Return the elasticities of one strategy.

    figures : those wanted, by name; default: all
    request_rate : where the latency elasticities are taken [req/s]; default 80 % of the goodput
    method : "analytic", "simulated", or "auto", which simulates where runs do not bear out the
        formulas' goodput

    Raises InputError (no objectives, closed loop, a rate beyond saturation), InfeasibleError (no
    goodput).
    """
    say = progress or (lambda _: None)
    checked_method(method)
    lowered = lower(checked_problem(problem))
    if method == "analytic":
        refuse_uncovered(lowered.system(strategy))
    say("goodput")
    operating = operate(lowered, strategy, method)
    wanted = chosen(operating, figures)
    rate = LOAD * operating.rate if request_rate is None else _bearable(operating, request_rate)
    if operating.method == "simulated":
        rows, steep = _simulated(operating, wanted, rate, say)
    else:
        rows, steep = _rows(operating, wanted, rate, AT_ONCE, STEP, say)
        chained = chained_elasticities(operating, steep)
        rows = tuple(replace(r, chained=chained.get(r.parameter)) for r in rows)
    return SensitivityReport(
        problem=problem,
        strategy=str(operating.strategy),
        goodput=operating.rate,
        binding=operating.found.binding.key,
        request_rate=rate,
        steepness=steep,
        rows=rows,
        regime=_regime(operating),
        method=operating.method,
        trust=operating.found.trust,
    )


def _bearable(operating: Operating, rate: float) -> float:
    """Return the rate if latencies are finite around it. Raises InputError."""
    limit = operating.found.at.stability_rate
    if rate >= (1 - SIMULATED_STEP) * limit:
        raise InputError(
            f"{operating.strategy} sustains {limit:.4g} req/s; at {rate:.4g} req/s its latencies "
            f"are not finite or nearly so: ask below {(1 - SIMULATED_STEP) * limit:.4g}"
        )
    return rate


def _regime(operating: Operating) -> Regime | None:
    if operating.lowered.problem.step_time is not None:
        return None
    return regime_of(operating.lowered, operating.strategy, operating.found.at.mean_batch)


def chosen(operating: Operating, figures: Sequence[str] | None) -> tuple[Parameter, ...]:
    """Return the named figures, or all that matter. UnknownNameError for a name that is none."""
    if figures is not None:
        return tuple(parameter(operating.lowered, name) for name in figures)
    idle = () if operating.strategy.disaggregated else tuple(f"engine.{n}" for n in SPLIT)
    return tuple(p for p in parameters(operating.lowered) if p.name not in idle)


def _simulated(
    operating: Operating, wanted: Sequence[Parameter], rate: float, say: Progress
) -> tuple[tuple[Elasticity, ...], float]:
    """Return rows averaged over replications that share their random numbers."""
    runs = []

    def silent(_: str) -> None:
        """The replications say enough."""

    reader = operating.target.reader
    for seed in range(REPLICATIONS):
        say(f"replication {seed + 1} of {REPLICATIONS}")
        runs.append(
            _rows(operating, wanted, rate, simulated_observer(seed, reader), SIMULATED_STEP, silent)
        )
    slopes = np.array([s for _, s in runs])
    steep = float(slopes.mean())
    rows = []
    for same in zip(*(r for r, _ in runs), strict=True):
        # Ratio of means: the slope by the rate is common to all rows and noisy in each run.
        moved = np.array([r.goodput for r in same]) * slopes
        ratio = float(moved.mean()) / steep
        rows.append(
            replace(
                same[0],
                goodput=ratio,
                ttft={k: float(np.mean([r.ttft[k] for r in same])) for k in SHOWN},
                tpot={k: float(np.mean([r.tpot[k] for r in same])) for k in SHOWN},
                sd=float(np.std(moved - ratio * slopes, ddof=1)) / steep / math.sqrt(len(same)),
            )
        )
    return tuple(rows), steep


def simulated_observer(seed: int, reader: Reader | Readers | None = None) -> Observer:
    """Return simulations that draw the same requests whatever the figures.

    reader : whose deadlines are watched
    """
    from bestserve.answers.referee import as_latencies
    from bestserve.answers.simulated import Simulated

    def latencies(system: System, rate: float) -> Latencies:
        run = Simulated(system=system, share=ROUGH, seed=seed, reader=reader).run(rate)
        return as_latencies(run, rate, math.nan)

    def limit(system: System) -> float:
        return Simulated(system=system, share=ROUGH, seed=seed).limit

    return Observer(latencies, limit, finite=True)


def _rows(
    operating: Operating,
    wanted: Sequence[Parameter],
    rate: float,
    observer: Observer,
    step: float,
    say: Progress,
) -> tuple[tuple[Elasticity, ...], float]:
    steep = steepness(operating, observer, step)
    rows = []
    for figure in wanted:
        say(figure.name)
        rows.append(_row(operating, figure, rate, observer, step, steep))
    return tuple(rows), steep


def steepness(operating: Operating, observer: Observer = AT_ONCE, step: float = STEP) -> float:
    """Return −∂room/∂ln rate at the goodput [1], 1 when stability binds."""
    binding = operating.found.binding
    if binding is Binding.STABILITY:
        return 1.0
    h = step
    if not observer.finite:
        # Close to saturation a smaller difference keeps the upper point stable.
        share = operating.rate / observer.limit(operating.system)
        h = min(step, max(0.2 * (1 / share - 1), 1e-4))
    up, down = (
        objective_room(
            observer.latencies(operating.system, operating.rate * math.exp(sign * h)),
            operating.target,
            binding,
        )
        for sign in (1, -1)
    )
    return (down - up) / (2 * h)


def _row(
    operating: Operating,
    figure: Parameter,
    rate: float,
    observer: Observer,
    step: float,
    steep: float,
) -> Elasticity:
    if figure.whole:
        step = max(step, 1.0 / figure.value)
    up = _looked_at(operating, figure, min(figure.value * math.exp(step), figure.high), observer)
    down = _looked_at(operating, figure, max(figure.value * math.exp(-step), figure.low), observer)
    width = math.log(up.value / down.value)
    if width <= 0:  # whole-number lengths too short to move
        zero = dict.fromkeys(SHOWN, math.nan)
        return Elasticity(figure.name, figure.value, figure.unit, math.nan, zero, dict(zero))
    above, below = up.at(rate), down.at(rate)
    slopes = {
        metric: {
            s: math.log(_statistic(above, metric, s) / _statistic(below, metric, s)) / width
            for s in SHOWN
        }
        for metric in ("ttft", "tpot")
    }
    return Elasticity(
        parameter=figure.name,
        value=figure.value,
        unit=figure.unit,
        goodput=(up.room() - down.room()) / width / steep,
        ttft=slopes["ttft"],
        tpot=slopes["tpot"],
    )


def _statistic(found: Latencies, metric: str, statistic: str) -> float:
    law = getattr(found, metric)
    value = law.mean if statistic == "mean" else law.quantile(float(statistic[1:]) / 100)
    return max(float(value), 1e-12)


class _looked_at:  # noqa: N801
    """One figure moved to one side: its true value there, rooms and latencies."""

    def __init__(
        self, operating: Operating, figure: Parameter, value: float, observer: Observer
    ) -> None:
        moved = at_value(operating.lowered, figure.name, value)
        same = [p.value for p in parameters(moved) if p.name == figure.name]
        self.value = same[0] if same else value
        self.operating, self.observer = operating, observer
        self.lowered: Lowered = moved
        self.system = moved.system(operating.strategy)

    def at(self, rate: float) -> Latencies:
        """Latencies at a rate [req/s]."""
        return self.observer.latencies(self.system, rate)

    def room(self) -> float:
        """Room of the binding objective at the unmoved goodput [1]."""
        slo = self.lowered.problem.slo
        assert slo is not None
        binding = self.operating.found.binding
        if binding is Binding.STABILITY:
            return math.log(self.observer.limit(self.system))
        found = self.at(self.operating.rate)
        return objective_room(found, slo.target(), binding)
