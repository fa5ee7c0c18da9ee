"""Sweeps over one or two figures, and the map of which strategy wins where.

Candidates are the leaders of the rankings at the middle and at the corners of the sweep, so that
what wins at an extreme is among them; every candidate is then evaluated at every point. Points go
through joblib: inside `joblib.parallel_config(...)` they run on that backend.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.analysis.operating import goodput_near
from bestserve.analysis.parameters import changed
from bestserve.answers.evaluate import evaluator, goodput
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import lower
from bestserve.models.attainment import margin
from bestserve.results.drawn import Drawn
from bestserve.solvers.ranking import checked_problem, rank_strategies
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy
from bestserve.units import parse_duration

Progress = Callable[[str], None]
LEADERS = 3
"""Families of strategies taken from each ranking."""

MOST_POINTS = 10_000

Place = tuple[int, ...]
"""A point by its place on each axis."""

TIE = 0.02
"""Candidates this close to the best are told apart; the rest only lose [1]."""

ROW = 5
"""Neighbouring points of a one-figure sweep that share a worker."""

EVERY, FEW = 5, 8
"""Steps at most between points of a long axis at which all candidates are looked at, and points up
to which it is short: in between only those that come near the best at one of the ends around."""

NEAR = 0.15
"""How far below the best they may be there [1]."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A figure and the values it takes: in its unit, as factors "x0.5" or as times "20ms"."""

    name: str
    values: tuple[float | str, ...]

    def numbers(self) -> list[float] | None:
        """Return values or factors as numbers; None if they are names."""
        texts = [str(v).strip().lstrip("x×*") for v in self.values]
        try:
            return [float(t) if t[-1:] in "0123456789." else parse_duration(t) for t in texts]
        except (ValueError, InputError):
            return None

    def ends(self) -> list[int]:
        """Return the points at which all candidates are looked at: all of a short axis.

        So they are where values do not go one way.
        """
        count = len(self.values)
        numbers = self.numbers() or []
        rising = numbers in (sorted(numbers), sorted(numbers, reverse=True)) and bool(numbers)
        if count <= FEW or not rising:
            return list(range(count))
        parts = math.ceil((count - 1) / EVERY)
        return [round(i * (count - 1) / parts) for i in range(parts + 1)]

    @property
    def factors(self) -> bool:
        """Whether the values are factors."""
        return all(str(v).strip()[:1] in "x×*" for v in self.values)


@dataclass(frozen=True, slots=True)
class Sweep(Drawn):
    """Goodput of the best candidates at every point.

    goodput : [points, candidates], 0 where infeasible, None where more than `TIE` below the best
        [req/s]; points in the order of `itertools.product` over the axes
    """

    problem: Problem
    axes: tuple[Axis, ...]
    strategies: tuple[str, ...]
    goodput: tuple[tuple[float | None, ...], ...]

    def points(self) -> list[tuple[float | str, ...]]:
        """Return the points in order."""
        return list(itertools.product(*(a.values for a in self.axes)))

    def winners(self) -> list[str | None]:
        """Return the best candidate at every point; None where none is feasible."""
        found = []
        for row, best in zip(self.goodput, self.best(), strict=True):
            found.append(self.strategies[row.index(best)] if best > 0 else None)
        return found

    def best(self) -> list[float]:
        """Return the best goodput at every point [req/s]."""
        return [max(g or 0.0 for g in row) for row in self.goodput]

    def tied(self) -> list[tuple[str, ...]]:
        """Return, for every point, the candidates within `TIE` of the best."""
        return [
            tuple(
                name
                for name, g in zip(self.strategies, row, strict=True)
                if g is not None and g > 0 and g >= best * (1 - TIE)
            )
            for row, best in zip(self.goodput, self.best(), strict=True)
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return one row per point; `ties`: candidates within 2 % of the winner, of `layout`."""
        columns = zip(self.points(), self.winners(), self.best(), self.tied(), strict=True)
        return [
            {
                **{a.name: v for a, v in zip(self.axes, point, strict=True)},
                "winner": winner,
                "layout": winner and Strategy.parse(winner).layout,
                "goodput": best,
                "ties": " ".join(t for t in ties if t != winner),
            }
            for point, winner, best, ties in columns
        ]

    def explain(self) -> str:
        """Return where the winner changes, along each line of the first axis."""
        winners, size = self.winners(), len(self.axes[0].values)
        shares = {w: winners.count(w) for w in dict.fromkeys(winners)}
        lines = [
            f"{w or 'nothing'} wins at {n} of {len(winners)} points"
            for w, n in sorted(shares.items(), key=lambda item: -item[1])
        ]
        layouts = [w and Strategy.parse(w).layout for w in winners]
        found = {layout: layouts.count(layout) for layout in dict.fromkeys(layouts) if layout}
        if len(found) > 1:
            told = ", ".join(f"{layout} at {n}" for layout, n in found.items())
            lines.append(f"by layout: {told} of {len(winners)} points")
        inner = len(winners) // size
        for j in range(inner if len(shares) > 1 else 0):
            column = winners[j::inner]
            where = f" at {self.axes[1].name} {self.axes[1].values[j]}" if inner > 1 else ""
            for i in range(1, size):
                if column[i] != column[i - 1]:
                    a, b = self.axes[0].values[i - 1 : i + 1]
                    lines.append(
                        f"between {self.axes[0].name} {a} and {b}{where}: "
                        f"{column[i - 1] or 'nothing'} gives way to {column[i] or 'nothing'}"
                    )
        return "\n".join(lines)


def sweep(
    problem: Problem,
    axes: Mapping[str, Sequence[float | str]],
    *,
    strategies: Sequence[str] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Evaluate strategies over one or two figures.

    axes : figure → values or factors, e.g. {"hardware.memory_bandwidth": ["x0.5", "x1", "x2"]}
    strategies : candidates; default: leaders of rankings at the middle and the corners
    jobs : joblib workers; None takes the active joblib configuration, one process without

    Raises InputError for other than one or two axes, or more than 10,000 points.
    """
    checked_problem(problem)
    found = tuple(Axis(name, tuple(values)) for name, values in axes.items())
    count = int(np.prod([len(a.values) for a in found])) if found else 0
    if not 1 <= len(found) <= 2 or not 1 <= count <= MOST_POINTS:
        raise InputError(
            f"a sweep takes one or two figures and 1 to {MOST_POINTS:,} points in all, "
            f"not {len(found)} and {count:,}"
        )
    points = list(itertools.product(*(a.values for a in found)))
    problems = [
        changed(problem, dict(zip((a.name for a in found), p, strict=True))) for p in points
    ]
    names = tuple(strategies or leaders(problem, _extremes(found, problems), progress))
    if not names:
        raise InfeasibleError("no strategy is feasible at the middle or a corner of the sweep")
    from joblib import Parallel, delayed

    if progress is not None:
        progress(f"{len(points)} points, {len(names)} strategies")
    solved: dict[Place, dict[str, float | None]] = {}

    def solve(places: Sequence[Place], within: float) -> None:
        # Neighbours share a worker: each point starts from the goodput of the one before.
        rows = list(_rows(places, count if len(sizes) == 2 else ROW))
        work = (
            delayed(along)(
                [problems[int(np.ravel_multi_index(place, sizes))] for place in row],
                [_contenders(names, place, ends, solved) for place in row],
                within,
            )
            for row in rows
        )
        # One process hands back row after row, so that it can say how far it is, and be stopped.
        parallel = Parallel(n_jobs=jobs, return_as="generator" if jobs == 1 else "list")
        for number, (row, answers) in enumerate(zip(rows, parallel(work), strict=True), start=1):
            solved.update(zip(row, answers, strict=True))
            if progress is not None:
                progress(f"{number} of {len(rows)} rows")

    sizes = tuple(len(a.values) for a in found)
    ends = tuple(a.ends() for a in found)
    every = list(itertools.product(*map(range, sizes)))
    framed = [*itertools.product(*ends)]
    solve(framed, TIE if len(framed) == count else NEAR)
    solve([place for place in every if place not in solved], TIE)
    goodputs = tuple(tuple(solved[place].get(name) for name in names) for place in every)
    return Sweep(problem, found, names, goodputs)


def _rows(places: Iterable[Place], most: int) -> Iterator[list[Place]]:
    """Yield neighbouring points, at most so many at a time."""
    for _, group in itertools.groupby(places, key=lambda place: place[:-1]):
        row = list(group)
        yield from (row[i : i + most] for i in range(0, len(row), most))


def _contenders(
    names: Sequence[str],
    place: Place,
    ends: Sequence[Sequence[int]],
    solved: Mapping[Place, Mapping[str, float | None]],
) -> list[str]:
    """Return the candidates that are looked at in a point: all, or those near at the ends around.

    ends : of each axis; solved : goodputs at points that are ends on all axes [req/s]
    """
    around = [{max(e for e in own if e <= i), min(e for e in own if e >= i)}
              for i, own in zip(place, ends, strict=True)]  # fmt: skip
    known = [solved[corner] for corner in itertools.product(*around) if corner in solved]
    near: set[str] = set()
    for goodputs in known:
        best = max(rate or 0.0 for rate in goodputs.values())
        near |= {name for name, rate in goodputs.items() if rate and rate >= best * (1 - NEAR)}
    return [name for name in names if name in near] or list(names)


def _extremes(axes: tuple[Axis, ...], problems: list[Problem]) -> list[Problem]:
    """Return the problems at the corners of the sweep and at its middle."""
    sizes = [len(a.values) for a in axes]
    corners = itertools.product(*({0, n - 1} for n in sizes))
    indices = {tuple(c) for c in corners} | {tuple(n // 2 for n in sizes)}
    return [problems[int(np.ravel_multi_index(i, sizes))] for i in sorted(indices)]


def leaders(
    problem: Problem,
    extremes: Sequence[Problem] = (),
    progress: Progress | None = None,
    each: int = LEADERS,
) -> list[str]:
    """Return the best strategies of different families at a problem and at others around it."""
    found: dict[str, None] = {}
    # The middle of a sweep by factors is the problem itself, written differently.
    asked = {p.model_dump_json(exclude={"hardware": {"name"}}): p for p in [problem, *extremes]}
    for number, each_problem in enumerate(asked.values()):
        if progress is not None:
            progress(f"candidates {number + 1} of {len(asked)}")
        for name in families(rank_strategies(each_problem).table, each):
            found.setdefault(name)
    return list(found)


def families(table: Sequence[Any], each: int) -> list[str]:
    """Return the best strategy of each of the first families: same pools, whatever limits."""
    best: dict[tuple[Any, ...], str] = {}
    for row in table:
        pools = Strategy.parse(row.strategy).pools
        key = tuple((p.role, p.replicas, p.parallelism, p.local) for p in pools)
        best.setdefault(key, row.strategy)
        if len(best) == each:
            break
    return list(best.values())


def variants(table: Sequence[Any], each: int, most: int) -> list[str]:
    """Return the best of the first families, then their other batch limits, `most` in all.

    The best token budget changes with the lengths even where the pools stay the same.
    """
    leading = families(table, each)

    def pools(name: str) -> tuple[Any, ...]:
        pools = Strategy.parse(name).pools
        return tuple((p.role, p.replicas, p.parallelism, p.local) for p in pools)

    known = {pools(name) for name in leading}
    others = [r.strategy for r in table if pools(r.strategy) in known]
    return list(dict.fromkeys([*leading, *others]))[:most]


def along(
    problems: Sequence[Problem], contenders: Sequence[Sequence[str]], within: float
) -> list[dict[str, float | None]]:
    """Return goodputs of the candidates along neighbouring problems, by name (see `Sweep.goodput`).

    contenders : of each problem; within : how far below the best no goodput is told any more [1]
    """
    from bestserve.host.threads import one_blas_thread

    order: list[str] = []
    guess = 0.0
    rows = []
    with one_blas_thread():
        for problem, names in zip(problems, contenders, strict=True):
            # The winner goes first at the next point: most others then lose at the first look.
            order = [*(n for n in order if n in names), *(n for n in names if n not in order)]
            found = _point(problem, order, guess, within)
            best = max(order, key=lambda name: found[name] or 0.0)
            guess = found[best] or 0.0
            order.sort(key=lambda name: name != best)
            rows.append(found)
    return rows


def _point(
    problem: Problem, order: Sequence[str], guess: float, within: float
) -> dict[str, float | None]:
    lowered = lower(problem)
    slo = problem.slo
    assert slo is not None
    target = slo.target()
    best = 0.0
    found: dict[str, float | None] = {}
    for name in order:
        try:
            system = lowered.system(name)
        except InfeasibleError:
            found[name] = 0.0
            continue
        if best > 0 and margin(evaluator(system)(best * (1 - within)), target)[0] < 0:
            found[name] = None
            continue
        start = best or guess
        rate = goodput_near(system, target, start) if start else goodput(system, target)
        found[name] = rate
        best = max(best, rate)
    return found
