"""Sentences with numbers: why the winner wins, why the others lose."""

from __future__ import annotations

from bestserve.results.prediction import Binding, RankedStrategy, Ranking, expected
from bestserve.specs.strategy import Strategy


def explain_ranking(ranking: Ranking, losers: int) -> str:
    """Return the explanation of a ranking, one fact a line."""
    if not ranking.table:
        return ranking.why_nothing() + "\n" + "\n".join(_rejections(ranking))
    best = ranking.best
    lines = [f"{best.strategy} wins with {best.goodput:.3g} req/s ({_interval(best)})."]
    lines.append(f"  It stops at its {_stop(best, ranking)}; trust {best.trust}.")
    if ranking.intervals:
        lines.append(f"  At this rate {expected(ranking.intervals)}.")
    rivals = _rivals(ranking)
    for title, rival in rivals:
        lines.append(f"  {title}: {_against(rival, best, ranking)}")
    others = _families(ranking, [best, *(r for _, r in rivals)])
    if others and losers:
        lines.append("Why others lose:")
        lines += [f"  {_against(s, best, ranking)}" for s in others[:losers]]
    rejected = _rejections(ranking)
    if rejected:
        lines.append("Rejected:")
        lines += rejected
    return "\n".join(lines)


def _interval(s: RankedStrategy) -> str:
    per_gpu = f"{s.goodput_per_gpu:.3g} per GPU"
    if s.high - s.low > 0.02 * s.goodput:
        return f"{s.low:.3g} to {s.high:.3g}, {per_gpu}"
    return per_gpu


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
    for s in ranking.table[1:]:
        if Strategy.parse(s.strategy).disaggregated != mine.disaggregated:
            layout = "collocated" if mine.disaggregated else "disaggregated"
            found.append((f"Best {layout}", s))
            break
    for s in ranking.table[1:]:
        other = Strategy.parse(s.strategy)
        same = other.disaggregated == mine.disaggregated
        if same and [p.parallelism for p in other.pools] != [p.parallelism for p in mine.pools]:
            found.append(("Best with other parallelism", s))
            break
    return found


def _families(ranking: Ranking, told: list[RankedStrategy]) -> list[RankedStrategy]:
    """The best strategy of each family (pools up to their batch limits) not told of yet."""
    seen = {_family(s) for s in told}
    found = []
    for s in ranking.table:
        if _family(s) not in seen:
            seen.add(_family(s))
            found.append(s)
    return found


def _family(s: RankedStrategy) -> tuple[object, ...]:
    return tuple((p.role, p.replicas, p.parallelism) for p in Strategy.parse(s.strategy).pools)


def _rejections(ranking: Ranking) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for r in ranking.rejected:
        by_reason.setdefault(r.reason, []).append(r.strategy)
    lines = []
    for reason, names in list(by_reason.items())[:6]:
        shown = ", ".join(dict.fromkeys(names[:4])) + (", …" if len(names) > 4 else "")
        lines.append(f"  {shown}: {reason}")
    if len(by_reason) > 6:
        lines.append(f"  … and {len(by_reason) - 6} more reasons (see .rejected)")
    return lines
