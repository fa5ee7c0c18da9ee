"""`bestserve memory`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from bestserve.cli.flags import Format, Whole
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.question import Question


def memory(
    strategy: str | None = None,
    options: ProblemOptions | None = None,
    *,
    max_model_len: Annotated[int | None, Whole] = None,
    engine_version: str | None = None,
    block_size: Annotated[int | None, Whole] = None,
    enforce_eager: bool = False,
    concurrency: float | None = None,
    context: float | None = None,
    startup_log: str | None = None,
    speculative_config: str | None = None,
    request_rate: float | None = None,
    format: Format = "table",
) -> int:
    """Say where a GPU's memory goes, how many requests the cache holds, and what would hold more.

    Parameters
    ----------
    strategy
        1m-tp4; default: one instance with --tensor-parallel-size
    max_model_len
        longest request that is admitted [tokens]; default: the model's longest context
    engine_version
        e.g. 0.19: decides what the engine counts
    block_size
        tokens of a block of the cache; default: the engine's
    enforce_eager
        without CUDA graphs
    concurrency
        wanted requests at once: the least GPUs and the utilization for it
    context
        length of the wanted requests [tokens]; default: max_model_len
    startup_log
        a server's log: compared line by line, and the reserve is taken from it
    speculative_config
        vLLM's, e.g. '{"method": "mtp", "num_speculative_tokens": 1}': what drafts is counted, too
    request_rate
        at which the working set of conversations is counted [req/s]
    """
    from bestserve import api

    given = options or ProblemOptions()
    if strategy is None:
        strategy = _strategy(given)
    problem = given.build(strategy)
    settings = {
        "max_model_len": max_model_len,
        "engine_version": engine_version or "",
        "block_size": block_size,
        "enforce_eager": enforce_eager,
        "concurrency": concurrency,
        "context": context,
        "startup_log": startup_log,
        "speculative_config": speculative_config,
        "request_rate": request_rate,
    }
    found = api.memory(problem, strategy, **settings)  # type: ignore[arg-type]
    asked = {"strategy": strategy, **settings, "engine_version": engine_version}
    emit_explained(
        found,
        format,
        f"{found.model} on {found.hardware}, {found.strategy}, {found.engine}",
        question=Question("memory", problem, asked),
    )
    return 0 if found.status.name == "OK" else 3


def _strategy(options: ProblemOptions) -> str:
    if not dataclasses.is_dataclass(options):
        return "1m-tp1"
    tp = getattr(options, "tensor_parallel_size", None) or [1]
    pp = getattr(options, "pipeline_parallel_size", None) or [1]
    return f"1m-tp{tp[0]}" + (f"-pp{pp[0]}" if pp[0] > 1 else "")
