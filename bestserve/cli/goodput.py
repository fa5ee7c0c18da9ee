"""`bestserve goodput`."""

from __future__ import annotations

from bestserve.cli.flags import Format, Method, StrategyName
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit
from bestserve.cli.question import Question
from bestserve.cli.talk import talk


def goodput(
    strategy: StrategyName,
    options: ProblemOptions | None = None,
    *,
    method: Method = "auto",
    format: Format = "table",
) -> int:
    """Find the highest rate at which one strategy meets the objectives.

    Parameters
    ----------
    method
        auto takes the formulas where runs agree with them; analytic, simulated
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build(strategy)
    found = api.goodput(problem, strategy, method=method)
    asked = {"strategy": strategy, "method": method}
    emit(found, format, question=Question("goodput", problem, asked))
    if found.economics is not None and format in ("table", "md"):
        print(f"\n{found.economics.explain()}")
    if not found.trust.high:
        talk(f"trust {found.trust}")
    return 0
