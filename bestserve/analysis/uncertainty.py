"""How sure a ranking is: goodput under uncertain calibration, and the measurement worth making.

Uncertain factors are lognormal, as wide as those behind the intervals of `predict` and `rank`
(`answers.factors`): as deployments of one engine differ, or as a calibration record says.
Goodput of each candidate is computed on Latin-hypercube samples that all candidates share, and
expanded in Hermite polynomials of the normal factors; variances, Sobol indices and conditional
means then follow in closed form from the coefficients (Sudret 2008), and bootstrap over the samples
gives their intervals. `explained` says how much of the variance the expansion predicts on samples
left out; where that is poor, so are the indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.analysis.expansion import Expansion, fit
from bestserve.analysis.operating import goodput_near, operate
from bestserve.analysis.parameters import at_value, parameter
from bestserve.analysis.sweep import leaders
from bestserve.answers.factors import BY_NAME, Factor, apply_factors, spreads_of, varied
from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.step.constants import OperatorConstants
from bestserve.results.drawn import Drawn
from bestserve.solvers.ranking import checked_problem, rank_strategies
from bestserve.specs.problem import Problem

Floats = np.ndarray
Progress = Callable[[str], None]

SAMPLES = 48
CANDIDATES = 3
BOOTSTRAP = 200
ROUNDING = 1e-9
"""Share of the goodput up to which a gain is rounding [1]."""


@dataclass(frozen=True, slots=True)
class Index:
    """Sobol indices of goodput by one factor, with 95 % intervals, and what knowing it is worth.

    sd : standard deviation of the factor's logarithm
    first : share of the variance that knowing the factor removes; total : share it takes part in
    worth : expected goodput gained by choosing the strategy after learning the factor [req/s]
    """

    factor: Factor
    sd: float
    first: float
    first_low: float
    first_high: float
    total: float
    total_low: float
    total_high: float
    worth: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """One strategy under uncertainty: goodput now and its spread [req/s], how often it is best."""

    strategy: str
    goodput: float
    mean: float
    low: float
    high: float
    best_share: float
    regret: float
    """Mean loss against the best candidate of each sample [req/s]."""


@dataclass(frozen=True, slots=True)
class Uncertainty(Drawn):
    """How goodput and winner depend on what is not known about engine and kernels.

    candidates : the winner first; indices : of the winner's goodput, largest first
    explained : share of its variance that the expansion predicts on samples left out [1]
    probability : that the winner is the best candidate, with its 95 % interval [1]
    """

    problem: Problem
    samples: int
    candidates: tuple[Candidate, ...]
    indices: tuple[Index, ...]
    explained: float
    probability: float
    probability_low: float
    probability_high: float

    @property
    def winner(self) -> Candidate:
        """The strategy that is best with the constants as they stand."""
        return self.candidates[0]

    @property
    def measurement(self) -> Index:
        """The factor whose measurement removes most of the variance."""
        return max(self.indices, key=lambda i: i.first)

    def records(self) -> list[dict[str, Any]]:
        """Return one row per factor."""
        return [
            {
                "factor": i.factor.name,
                "sd": i.sd,
                "first": i.first,
                "first_low": i.first_low,
                "first_high": i.first_high,
                "total": i.total,
                "total_low": i.total_low,
                "total_high": i.total_high,
                "worth": i.worth,
                "needs": i.factor.needs,
            }
            for i in self.indices
        ]

    def explain(self) -> str:
        """Return how sure the winner is and what to measure."""
        w, m = self.winner, self.measurement
        lines = [
            f"{w.strategy}: {w.goodput:.3g} req/s with the constants as they stand, "
            f"{w.low:.3g} to {w.high:.3g} (90 %) under their uncertainty alone.",
            f"  It is the best of {len(self.candidates)} candidates with probability "
            f"{self.probability:.0%} ({self.probability_low:.0%} to {self.probability_high:.0%}); "
            f"choosing it costs {w.regret:.2g} req/s on average against hindsight.",
        ]
        for c in self.candidates[1:]:
            lines.append(f"  {c.strategy} is best with probability {c.best_share:.0%}.")
        lines.append(
            f"  Measure {m.factor.name} first: it causes {m.first:.0%} "
            f"({m.first_low:.0%} to {m.first_high:.0%}) of the variance. How: "
            f"{m.factor.needs}."
        )
        if self.explained < GOOD:
            lines.append(
                f"  The expansion explains only {self.explained:.0%} of samples left out: "
                "take the indices as rough, or raise samples."
            )
        return "\n".join(lines)

    def cite(self) -> str:
        """Return the sources of the method, as BibTeX."""
        from bestserve.results.citations import bibtex

        return bibtex("sensitivity")


GOOD = 0.9


def uncertainty(
    problem: Problem,
    *,
    strategies: Sequence[str] | None = None,
    factors: Sequence[Factor] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Uncertainty:
    """Return how sure the winner is under uncertain calibration.

    strategies : candidates, default the best of the first three families of the ranking
    factors : what is uncertain; default: the table's, with the standard errors of the problem's
        calibration record. Others are as wide as their `between` and scale figures of the problem
        ("step_time.w")
    samples : shared by all candidates, ≥ 16; jobs : joblib workers

    Raises InputError for problems that bring their own step time without `factors`.
    """
    if samples < 16:
        raise InputError(f"samples = {samples}: at least 16 are needed to fit an expansion")
    lowered = lower(checked_problem(problem))
    chosen = tuple(factors) if factors is not None else _default(lowered)
    known = spreads_of(lowered)
    spread = np.array([known.get(f.name, f.between) for f in chosen])
    names = list(strategies or leaders(problem, progress=progress, each=CANDIDATES))
    if not names:
        raise InfeasibleError(rank_strategies(problem).why_nothing())
    stands = [operate(lowered, name).rate for name in names]
    order = sorted(range(len(names)), key=lambda i: -stands[i])
    names, stands = [names[i] for i in order], [stands[i] for i in order]
    normal = _samples(len(chosen), samples, seed)
    moves = np.exp(spread * normal)
    if progress is not None:
        progress(f"{samples} samples of {len(names)} strategies")
    from joblib import Parallel, delayed

    block = max(1, math.ceil(samples / 8))
    blocks = [moves[i : i + block] for i in range(0, samples, block)]
    parts = Parallel(n_jobs=jobs)(
        delayed(_evaluate)(lowered.problem, lowered.constants, chosen, part, names, stands)
        for part in blocks
    )
    found = np.concatenate(parts)
    return summarise(
        problem, dict(zip(chosen, spread.tolist(), strict=True)), normal, names, stands, found, seed
    )


def _default(lowered: Lowered) -> tuple[Factor, ...]:
    found = varied(lowered, "disaggregated" in lowered.problem.layouts)
    if not found:
        raise InputError(
            "a problem with its own step_time says nothing about its uncertainty; give factors "
            "that scale step_time.w, step_time.a_step, … (bestserve.answers.factors.Factor)"
        )
    return found


def moved(lowered: Lowered, factors: Sequence[Factor], scales: Sequence[float]) -> Lowered:
    """Return a lowered problem with what each factor scales multiplied."""
    named = dict(zip((f.name for f in factors), map(float, scales), strict=True))
    lowered = apply_factors(lowered, {n: s for n, s in named.items() if n in BY_NAME})
    for factor in factors:
        for figure in () if factor.name in BY_NAME else factor.constants:
            value = parameter(lowered, figure).value * named[factor.name]
            lowered = at_value(lowered, figure, value)
    return lowered


def _samples(factors: int, count: int, seed: int) -> Floats:
    """Return standard normal Latin-hypercube samples [count, factors]."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    sampler = qmc.LatinHypercube(factors, rng=np.random.default_rng(seed), optimization=None)
    return np.asarray(ndtri(sampler.random(count)))


def _evaluate(
    problem: Problem,
    constants: OperatorConstants,
    factors: Sequence[Factor],
    moves: Floats,
    names: Sequence[str],
    stands: Sequence[float],
) -> Floats:
    """Return goodputs [samples, candidates] [req/s], factors at `moves` [samples, factors]."""
    from bestserve.host.threads import one_blas_thread

    base = Lowered(problem, constants)
    slo = problem.slo
    assert slo is not None
    target = slo.target()
    rows = np.zeros((len(moves), len(names)))
    with one_blas_thread():
        for i, point in enumerate(moves):
            lowered = moved(base, factors, point)
            # All candidates move together: what the first one loses, the others nearly lose too.
            guess = 1.0
            for j, name in enumerate(names):
                try:
                    system = lowered.system(name)
                except InfeasibleError:
                    continue
                rows[i, j] = goodput_near(system, target, stands[j] * guess)
                if j == 0 and rows[i, 0] > 0:
                    guess = rows[i, 0] / stands[0]
    return rows


def summarise(
    problem: Problem,
    spread: Mapping[Factor, float],
    normal: Floats,
    names: Sequence[str],
    stands: Sequence[float],
    found: Floats,
    seed: int = 0,
) -> Uncertainty:
    """Return the answer from sampled goodputs [samples, candidates] of normal factors.

    spread : each factor with the standard deviation of its logarithm [1]
    """
    expansions = [fit(normal, column) for column in found.T]
    resampled = _bootstrap(normal, found[:, 0], seed)
    worths = _worths(expansions, len(spread), seed)
    first, total = expansions[0].indices()
    indices = [
        Index(
            factor=f,
            sd=sd,
            first=float(first[i]),
            first_low=min(float(resampled[0, 0, i]), float(first[i])),
            first_high=max(float(resampled[1, 0, i]), float(first[i])),
            total=float(total[i]),
            total_low=min(float(resampled[0, 1, i]), float(total[i])),
            total_high=max(float(resampled[1, 1, i]), float(total[i])),
            worth=worths[i],
        )
        for i, (f, sd) in enumerate(spread.items())
    ]
    best = np.argmax(found, axis=1)
    regret = found.max(axis=1)[:, None] - found
    low, high = np.quantile(found, [0.05, 0.95], axis=0)
    wins = int(np.sum(best == 0))
    share_low, share_high = _wilson(wins, len(found))
    return Uncertainty(
        problem=problem,
        samples=len(found),
        candidates=tuple(
            Candidate(
                strategy=name,
                goodput=stands[j],
                mean=float(found[:, j].mean()),
                low=float(low[j]),
                high=float(high[j]),
                best_share=float(np.mean(best == j)),
                regret=float(regret[:, j].mean()),
            )
            for j, name in enumerate(names)
        ),
        indices=tuple(sorted(indices, key=lambda i: -i.total)),
        explained=expansions[0].explained,
        probability=wins / len(found),
        probability_low=share_low,
        probability_high=share_high,
    )


def _bootstrap(normal: Floats, values: Floats, seed: int) -> Floats:
    """Return 95 % intervals of (first, total) indices [2, 2, factors] by refitting resamples."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(BOOTSTRAP):
        rows = rng.integers(0, len(values), len(values))
        found.append(fit(normal[rows], values[rows], held_out=False).indices())
    return np.quantile(np.array(found), [0.025, 0.975], axis=0)


def _worths(expansions: Sequence[Expansion], factors: int, seed: int) -> list[float]:
    """Return E[max over strategies of E[goodput | factor]] − max E[goodput], per factor [req/s]."""
    means = max(float(e.mean) for e in expansions)
    z = np.random.default_rng(seed).standard_normal(4000)
    found = []
    for i in range(factors):
        known = np.stack([e.given(i, z) for e in expansions])
        unbiased = known - known.mean(axis=1, keepdims=True)
        unbiased += np.array([[e.mean] for e in expansions])
        gained = float(unbiased.max(axis=0).mean()) - means
        found.append(gained if gained > ROUNDING * means else 0.0)
    return found


def _wilson(wins: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    z = 1.959964
    p = wins / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)
