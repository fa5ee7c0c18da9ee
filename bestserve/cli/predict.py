"""`bestserve predict`."""

from __future__ import annotations

from bestserve.cli.flags import Format, Method, StrategyName
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit, emit_explained
from bestserve.cli.question import Question
from bestserve.cli.talk import talk


def predict(
    strategy: StrategyName,
    options: ProblemOptions | None = None,
    *,
    request_rate: float | None = None,
    method: Method = "auto",
    format: Format = "table",
) -> int:
    """Predict mean and percentiles of TTFT, TPOT and E2EL of one strategy.

    Parameters
    ----------
    request_rate
        requests per second; not needed for a closed loop (--max-concurrency) or a trace
    method
        auto takes the formulas where a run agrees with them; analytic, simulated
    """
    from bestserve import api

    problem = (options or ProblemOptions()).build(strategy)
    asked = {"strategy": strategy, "request_rate": request_rate, "method": method}
    question = Question("predict", problem, asked)
    prediction = api.predict(problem, strategy, request_rate, method=method)
    if prediction.ttft is None:
        if format == "json":
            emit(prediction, format, question=question)
        talk(prediction.explain())
        return 3
    emit_explained(prediction, format, prediction.strategy, question=question)
    return 0
