"""`bestserve goodput`."""

from __future__ import annotations

from bestserve.cli.flags import Format, Method, StrategyName
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit, emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import talk


def goodput(
    strategy: StrategyName,
    options: ProblemOptions | None = None,
    *,
    method: Method = "auto",
    wanted_rate: float | None = None,
    format: Format = "table",
) -> int:
    """Find the highest rate at which one strategy meets the objectives.

    Parameters
    ----------
    method
        auto takes the formulas where runs agree with them; analytic, simulated
    wanted_rate
        say instead which share of the prompt tokens would have to be cached for this rate [req/s]
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build(strategy)
    if wanted_rate is not None:
        needed = api.hit_needed(problem, strategy, wanted_rate)
        asked = {"strategy": strategy, "wanted_rate": wanted_rate}
        emit_explained(needed, format, question=Question("goodput", problem, asked))
        return 0 if needed.share is not None else 3
    found = api.goodput(problem, strategy, method=method)
    arguments = {"strategy": strategy, "method": method}
    emit(found, format, question=Question("goodput", problem, arguments))
    if found.economics is not None and format in ("table", "md"):
        print(f"\n{found.economics.explain()}")
    if not found.trust.high:
        talk(f"trust {found.trust}")
    return 0
