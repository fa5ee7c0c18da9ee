"""`bestserve launch`."""

from __future__ import annotations

from typing import Literal

from bestserve.cli.options import ProblemOptions
from bestserve.cli.talk import talk
from bestserve.errors import InputError


def launch(
    strategy: str,
    options: ProblemOptions | None = None,
    *,
    format: Literal["commands", "kubernetes"] = "commands",
    request_rate: float | None = None,
) -> int:
    """Print the commands that put a strategy into service, limits included.

    Parameters
    ----------
    strategy
        2m-tp4, 3p2d-tp4, 3p-tp2+2d-tp4
    options
        the problem
    format
        commands (shell) or kubernetes (YAML)
    request_rate
        also print the benchmark run at this rate; default: 80 % of the goodput
    """
    import shlex

    from bestserve import api
    from bestserve.answers.predict import checked_rate
    from bestserve.launch import bench_command, engine_family, launch_pools, manifest
    from bestserve.lowering import lower
    from bestserve.specs.strategy import Strategy

    problem = (options or ProblemOptions()).build()
    if problem.step_time is not None:
        raise InputError("a problem with its own step_time names no model to launch")
    if request_rate is not None:
        checked_rate(problem, request_rate)
    lowered, parsed = lower(problem), Strategy.parse(strategy)
    lowered.system(parsed)
    pools = launch_pools(lowered, parsed)
    context = lowered.model.max_position_embeddings
    if 0 < context < sum(lowered.mean_lengths):
        talk(f"{lowered.model.name} reads {context:,} tokens without rope scaling (YaRN): set it")
    if format == "kubernetes":
        print(manifest(pools, engine_family(lowered.engine.name)), end="")
        return 0
    for pool in pools:
        print(f"# {pool.instances} x {pool.role}, {pool.gpus} GPU{'s' * (pool.gpus > 1)} each")
        print(pool)
    rate = request_rate
    if rate is None and problem.workload.closed:
        talk(
            "a closed loop has no goodput: give --request-rate without --max-concurrency to "
            "have the benchmark's command"
        )
        return 0
    if rate is None:
        rate = 0.8 * api.goodput(problem, parsed).goodput
    print("# measure it; bestserve validate reads the log")
    print(shlex.join(bench_command(lowered, parsed, rate)))
    if parsed.disaggregated:
        talk("prefill and decode instances need a proxy that pairs them; see the engine's guide")
    return 0
