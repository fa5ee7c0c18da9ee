"""The answer to `rank`: strategies, best first, and the sentences that say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bestserve.errors import InfeasibleError
from bestserve.models.binding import Binding
from bestserve.models.trust import Trust
from bestserve.results.document import AnswerStatus, Document, plain
from bestserve.results.drawn import Drawn
from bestserve.results.economics import Economics
from bestserve.results.prediction import expected, telling
from bestserve.results.speculation import DraftChoice
from bestserve.specs.strategy import Strategy
from bestserve.units import milliseconds

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


WORTH_SAYING = 0.005
"""Relative gain by batch limits below which they bring nothing [1]."""


@dataclass(frozen=True, slots=True)
class RankedStrategy(Document):
    """One strategy with its goodput and where it stands at that rate.

    goodput, low, high : [requests/s], with the interval in which 90 % of deployments would lie;
        errors : its parts by cause, "sampling", "model", "calibration" and, where nobody states it,
        "acceptance" of drafts, as relative half-widths [1]; their squares add up
    tied : whether sampling and model leave open which of it and the first row carries more
    goodput_per_dollar : requests per dollar, if the hardware record has a price
    ttft, tpot : at the percentile of the objective, at the goodput [s]
    simulated_goodput : what runs at the goodput and beside it show [requests/s], None without runs;
        confirmed : whether they were made. Where formula and runs differ by more than 3 %,
        `goodput` is the simulated one, trusted where its interval is narrow
    economics : tokens, money and energy at the goodput
    shares : of hybrids, what each pool does: the parts of prompts on decode instances and of
        answers on prefill instances (`local_prefill_share`, `local_decode_share`), of the time that
        each pool runs steps (`prefill_busy`, `decode_busy`) [1], and a full step of decode
        instances (`full_step`) [s]
    """

    strategy: str
    gpus: int
    goodput: float
    low: float
    high: float
    goodput_per_gpu: float
    goodput_per_dollar: float | None
    ttft: float
    tpot: float
    utilisation: float
    binding: Binding
    trust: Trust
    method: str
    confirmed: bool = False
    simulated_goodput: float | None = None
    economics: Economics | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    tied: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)

    def records(self) -> list[dict[str, Any]]:
        """Return the one row, latencies in milliseconds."""
        return [
            {
                "strategy": self.strategy,
                "gpus": self.gpus,
                "goodput": self.goodput,
                "goodput_low": self.low,
                "goodput_high": self.high,
                "goodput_per_gpu": self.goodput_per_gpu,
                "goodput_per_dollar": self.goodput_per_dollar,
                "ttft_ms": milliseconds(self.ttft),
                "tpot_ms": milliseconds(self.tpot),
                "utilisation": self.utilisation,
                "binding": self.binding.value,
                "trust": self.trust.level,
                "method": self.method,
                "confirmed": self.confirmed,
                "simulated_goodput": self.simulated_goodput,
                **({} if self.economics is None else self.economics.records()),
                "tied": self.tied,
            }
        ]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A strategy, or a family of them, that was not ranked, and why."""

    strategy: str
    status: AnswerStatus
    reason: str


@dataclass(frozen=True, slots=True)
class Ranking(Drawn):
    """All strategies that fit, best goodput first, with the rejected ones and their reasons.

    `intervals` says where 90 % of measured runs of the best strategy at its goodput would lie, as
    in `Prediction`; `not_tried` names what was left out; `defaults` is the best strategy with the
    engine's own batch limits, None if they are its own; `drafting` why the best one drafts as many
    tokens as it does, None where the problem speculates nothing.
    """

    problem: Problem
    table: tuple[RankedStrategy, ...]
    rejected: tuple[Rejected, ...]
    considered: int
    seconds: float
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    not_tried: tuple[str, ...] = ()
    defaults: RankedStrategy | None = None
    drafting: DraftChoice | None = None

    def content(self) -> dict[str, Any]:
        """Return problem, strategies (best first) and the rejected ones as plain data."""
        return {
            "problem": plain(self.problem),
            "strategies": plain(self.table),
            "rejected": plain(self.rejected),
            "considered": self.considered,
            "seconds": self.seconds,
            "intervals": plain(dict(self.intervals)),
            "not_tried": list(self.not_tried),
            "defaults": plain(self.defaults),
            **({} if self.drafting is None else {"drafting": plain(self.drafting)}),
        }

    @property
    def best(self) -> RankedStrategy:
        """The strategy with the highest goodput. InfeasibleError if none is feasible."""
        if not self.table:
            raise InfeasibleError(self.why_nothing())
        return self.table[0]

    @property
    def failures(self) -> tuple[Rejected, ...]:
        """The strategies on which the models failed numerically, with the error: a bug each."""
        return tuple(r for r in self.rejected if r.status is AnswerStatus.FAILED)

    def why_nothing(self) -> str:
        """Return, in one line, why no strategy is feasible and what to try."""
        # Of each status the last one: the largest instances come closest.
        nearest = {r.status: r.reason for r in self.rejected}
        said = [f"{s.value} ({why})" if why != s.value else why for s, why in nearest.items()]
        shown = "; ".join(said) or "no strategy fits the GPU budget"
        count = self.problem.gpus
        return f"no strategy is feasible on {count} GPU{'s' if count > 1 else ''}: {shown}"

    def records(self) -> list[dict[str, Any]]:
        """Return one row per ranked strategy."""
        return [
            {"rank": rank, **row}
            for rank, strategy in enumerate(self.table, start=1)
            for row in strategy.records()
        ]

    def explain(self, losers: int = 4) -> str:
        """Return why the winner wins, why the next ones lose, and what was rejected."""
        return explain_ranking(self, losers)

    def pareto(self, metric: str = "ttft") -> tuple[RankedStrategy, ...]:
        """Return the strategies no other beats in both goodput per GPU and `metric` [s]."""
        points = [(s.goodput_per_gpu, -float(getattr(s, metric))) for s in self.table]
        return tuple(self.table[i] for i in pareto_front(points))

    def front(self) -> tuple[RankedStrategy, ...]:
        """Return the strategies no other beats in output per GPU and per user, fastest last.

        Both in tokens per second at each strategy's goodput; empty without economics.
        """
        known = [(s, s.economics) for s in self.table if s.economics is not None]
        points = [(e.output_per_gpu, e.output_per_user or 0.0) for _, e in known]
        return tuple(known[i][0] for i in pareto_front(points))

    def cite(self) -> str:
        """Return the sources of the methods this ranking used, as BibTeX."""
        from bestserve.results.citations import bibtex

        hybrids = any(Strategy.parse(s.strategy).hybrid for s in self.table)
        mixed = ("hybrid",) if hybrids else ()
        return bibtex("ranking", *{s.method for s in self.table}, *mixed)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of points that no other point beats in one coordinate at no loss.

    Larger is better in both. Order: falling first coordinate. Of equal points the first stays.

    >>> pareto_front([(3, 1), (2, 2), (1, 1), (3, 1)])
    [0, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], i))
    front: list[int] = []
    best = float("-inf")
    for i in order:
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front


def explain_ranking(ranking: Ranking, losers: int) -> str:
    """Return the explanation of a ranking, one fact a line."""
    if not ranking.table:
        return ranking.why_nothing() + "\n" + "\n".join(_rejections(ranking))
    best = ranking.best
    lines = [f"{best.strategy} wins with {best.goodput:.3g} req/s ({_interval(best)})."]
    lines.append(f"  It stops at its {_stop(best, ranking)}; trust {best.trust}.")
    if ranking.intervals and telling(ranking.intervals):
        lines.append(f"  At this rate {expected(ranking.intervals)}.")
    lines += _sharing(best, ranking)
    if best.economics is not None:
        lines.append(f"  {best.economics.explain()}.")
    if ranking.defaults is not None and ranking.defaults.goodput > 0:
        more = best.goodput / ranking.defaults.goodput - 1
        plain = f"{ranking.defaults.strategy} carries {ranking.defaults.goodput:.3g} req/s"
        brought = f"bring {more:.0%}" if more > WORTH_SAYING else "bring nothing"
        lines.append(f"  Its batch limits {brought} over the engine's own: {plain}.")
    if ranking.drafting is not None:
        lines.append(f"  {ranking.drafting.explain()}")
    lines += _front(ranking)
    ties = [s.strategy for s in ranking.table[1:] if s.tied]
    if ties:
        more_of_them = f" and {len(ties) - 3} more" if len(ties) > 3 else ""
        lines.append(
            f"  Within what is uncertain it ties with {', '.join(ties[:3])}{more_of_them}."
        )
    rivals = _rivals(ranking)
    for title, rival in rivals:
        lines.append(f"  {title}: {_against(rival, best, ranking)}")
    others = best_of_layouts(ranking.table, [best, *(r for _, r in rivals)])
    if others and losers:
        lines.append("Why others lose:")
        lines += [f"  {_against(s, best, ranking)}" for _, s in others[:losers]]
    rejected = _rejections(ranking)
    if rejected:
        lines.append("Rejected:")
        lines += rejected
    if ranking.not_tried:
        lines.append(f"Not tried: {'; '.join(ranking.not_tried)}.")
    return "\n".join(lines)


def _sharing(s: RankedStrategy, ranking: Ranking) -> list[str]:
    """Return why a hybrid does what it does; nothing of other strategies."""
    if not s.shares:
        return []
    slo = ranking.problem.slo
    assert slo is not None
    step = f"{1e3 * s.shares['full_step']:.0f} ms"
    of = f", TPOT may have {1e3 * slo.tpot:.0f} ms" if slo.tpot is not None else ""
    return [
        f"  Decode instances process {s.shares['local_prefill_share']:.0%} of the prompts; a full "
        f"step of theirs takes {step}{of}. Prefill instances run {s.shares['prefill_busy']:.0%} of "
        f"the time, decode instances {s.shares['decode_busy']:.0%}."
    ]


def _front(ranking: Ranking) -> list[str]:
    """Return the line on the field's common trade-off, if there is one."""
    told = []
    for s in ranking.front():
        assert s.economics is not None
        per_gpu, per_user = s.economics.output_per_gpu, s.economics.output_per_user or 0.0
        told.append(f"{s.strategy} {per_gpu:,.0f} at {per_user:.3g}")
    if len(told) < 2:
        return []
    few = told if len(told) <= 4 else [*told[:3], told[-1]]
    more = f" ({len(told) - 4} more between)" if len(told) > 4 else ""
    return [f"  Output tokens/s per GPU at tokens/s per user: {', '.join(few)}{more}."]


def _interval(s: RankedStrategy) -> str:
    per_gpu = f"{s.goodput_per_gpu:.3g} per GPU"
    if not s.errors:
        return per_gpu
    parts = ", ".join(f"{name} {part:.1%}" for name, part in s.errors.items() if part > 0)
    return f"{per_gpu}; {s.low:.3g} to {s.high:.3g}: {parts}"


def _stop(s: RankedStrategy, ranking: Ranking) -> str:
    slo = ranking.problem.slo
    assert slo is not None
    at = f"utilisation {s.utilisation:.0%}"
    if s.binding is Binding.TTFT and slo.ttft is not None:
        spare = "" if slo.tpot is None else f", TPOT {s.tpot * 1e3:.0f} of {slo.tpot * 1e3:.0f} ms"
        return f"TTFT objective ({slo.ttft * 1e3:.0f} ms; {at}{spare})"
    if s.binding is Binding.TPOT and slo.tpot is not None:
        spare = "" if slo.ttft is None else f", TTFT {s.ttft * 1e3:.0f} of {slo.ttft * 1e3:.0f} ms"
        return f"TPOT objective ({slo.tpot * 1e3:.0f} ms; {at}{spare})"
    return f"{s.binding.value} ({at})"


def _against(s: RankedStrategy, best: RankedStrategy, ranking: Ranking) -> str:
    less = round(100 * (1 - s.goodput / best.goodput))
    fewer = f"{less}% less" if less else "as much"
    idle = ranking.problem.gpus - s.gpus
    left = f", {idle} GPUs idle" if idle else ""
    return f"{s.strategy} carries {s.goodput:.3g} req/s ({fewer}{left}): {_stop(s, ranking)}"


def _rivals(ranking: Ranking) -> list[tuple[str, RankedStrategy]]:
    """The best strategy of the other layout, and the best with another parallelism."""
    best = ranking.best
    mine = Strategy.parse(best.strategy)
    found: list[tuple[str, RankedStrategy]] = []
    seen = {mine.layout}
    for s in ranking.table[1:]:
        layout = Strategy.parse(s.strategy).layout
        if layout not in seen:
            seen.add(layout)
            found.append((f"Best {layout}", s))
    for s in ranking.table[1:]:
        other = Strategy.parse(s.strategy)
        same = other.layout == mine.layout
        if same and [p.parallelism for p in other.pools] != [p.parallelism for p in mine.pools]:
            found.append(("Best with other parallelism", s))
            break
    return found


def best_of_layouts(
    table: Sequence[RankedStrategy], told: Sequence[RankedStrategy] = ()
) -> list[tuple[int, RankedStrategy]]:
    """Return the best row of each layout with its place in the table, best first.

    A layout is pools, replicas and parallelism, whatever the batch limits; told : rows whose
    layouts are left out
    """
    seen = {layout_of(s) for s in told}
    found = []
    for place, s in enumerate(table):
        layout = layout_of(s)
        if layout not in seen:
            seen.add(layout)
            found.append((place, s))
    return found


def layout_of(s: RankedStrategy) -> tuple[object, ...]:
    """Return what a strategy is up to its batch limits: pools, replicas, parallelism."""
    pools = Strategy.parse(s.strategy).pools
    return tuple((p.role, p.replicas, p.parallelism, p.local) for p in pools)


def _rejections(ranking: Ranking) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for r in ranking.rejected:
        by_reason.setdefault(r.reason, []).append(r.strategy)
    lines = []
    for reason, names in list(by_reason.items())[:6]:
        shown = ", ".join(dict.fromkeys(names[:4])) + (", …" if len(names) > 4 else "")
        lines.append(f"  {shown}: {reason}")
    if len(by_reason) > 6:
        lines.append(f"  … and {len(by_reason) - 6} more reasons: .rejected, or --format json")
    return lines
