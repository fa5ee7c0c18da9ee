"""`bestserve launch`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bestserve.cli.flags import StrategyName
from bestserve.cli.options import ProblemOptions
from bestserve.cli.talk import talk
from bestserve.errors import InputError

Format = Literal["commands", "compose", "kubernetes", "dynamo", "kserve", "llm-d"]


def launch(
    strategy: StrategyName,
    options: ProblemOptions | None = None,
    *,
    format: Format = "commands",
    request_rate: float | None = None,
    hosts: str | None = None,
    trace: Path | None = None,
) -> int:
    """Print the commands that put a strategy into service, limits included.

    Parameters
    ----------
    format
        commands (shell), compose (docker compose), kubernetes, dynamo (DynamoGraphDeployment),
        kserve (LLMInferenceService) or llm-d (values of its modelservice chart)
    request_rate
        also print the benchmark run at this rate; default: 80 % of the goodput
    hosts
        names or addresses of the machines, separated by commas; default: node0, node1, …, or
        127.0.0.1 if one is enough
    trace
        write the benchmark's requests into this file (JSONL, Mooncake's format)
    """
    from bestserve.answers.predict import checked_rate
    from bestserve.launch.benchmark import TRACE, bench_command, needs_trace, uncounted, write_trace
    from bestserve.launch.deployment import Deployment
    from bestserve.launch.formats import written
    from bestserve.lowering import lower
    from bestserve.specs.strategy import Strategy

    problem = (options or ProblemOptions()).build()
    if problem.step_time is not None:
        raise InputError("a problem with its own step_time names no model to launch")
    if request_rate is not None:
        checked_rate(problem, request_rate)
    if trace is not None:
        from bestserve.host.writing import check_target

        check_target(trace, "--trace")
    lowered, parsed = lower(problem), Strategy.parse(strategy)
    lowered.system(parsed)
    named = tuple(h.strip() for h in hosts.split(",") if h.strip()) if hosts else ()
    deployment = Deployment(lowered, parsed, named)
    context = lowered.model.max_position_embeddings
    if 0 < context < sum(lowered.mean_lengths):
        talk(f"{lowered.model.name} reads {context:,} tokens without rope scaling (YaRN): set it")
    if format != "commands":
        print(written(deployment, format), end="")
        for remark in deployment.remarks:
            talk(remark)
    rate = request_rate
    measured = format == "commands" or trace is not None
    if measured and rate is None and not problem.workload.closed:
        from bestserve import api

        rate = 0.8 * api.goodput(problem, parsed).goodput
    if trace is not None:
        count = write_trace(trace, lowered, rate)
        talk(f"{count:,} requests written to {trace}")
    if format == "commands":
        file = TRACE if trace is None else str(trace)
        bench = bench_command(lowered, parsed, deployment.url, deployment.model, rate, file)
        print(written(deployment, format, bench), end="")
        if trace is None and needs_trace(lowered):
            talk(f"the benchmark replays {TRACE}: write it with --trace {TRACE}")
        if said := uncounted(problem.slo):
            talk(said)
    return 0
