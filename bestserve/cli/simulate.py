"""`bestserve simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bestserve.cli.flags import FORMS, Count, Format, Requests, StrategyName, Whole
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit, emit_records
from bestserve.cli.question import Question
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError
from bestserve.host.writing import check_target, write_text


def simulate(
    strategy: StrategyName,
    options: ProblemOptions | None = None,
    *,
    request_rate: float | None = None,
    requests: Annotated[int | None, Requests] = None,
    replications: Annotated[int, Count] = 1,
    seed: Annotated[int, Whole] = 0,
    prefix_cache_tokens: float = 0.0,
    save_detailed: Path | None = None,
    format: Annotated[
        Format, Parameter(help=f"{FORMS}; csv lists the requests of a single run")
    ] = "table",
) -> int:
    """Simulate one strategy request by request; percentiles come with 95 % intervals.

    Parameters
    ----------
    request_rate
        requests per second; not needed for a closed loop (--max-concurrency)
    requests
        how many to simulate; default 20,000, or all of a trace
    replications
        independent runs, from which the intervals then come
    seed
        of the first run; equal seeds see equal requests
    prefix_cache_tokens
        tokens of a prefix cache shared by all replicas, for traces with block hashes
    save_detailed
        file for the requests, as `vllm bench serve --save-detailed` writes it
    """
    from bestserve.answers.predict import checked_rate, recorded_requests
    from bestserve.lowering import lower
    from bestserve.simulator import RunStatus, replicate, to_vllm_detailed
    from bestserve.simulator import simulate as run

    if save_detailed is not None:
        if replications > 1:
            raise InputError("save_detailed writes one run; leave replications at 1")
        check_target(save_detailed, "save_detailed")
    problem = (options or ProblemOptions()).build(strategy)
    rate = checked_rate(problem, request_rate) or None
    system = lower(problem).system(strategy)
    asked = {
        "strategy": strategy,
        "request_rate": request_rate,
        "requests": requests,
        "replications": replications,
        "seed": seed,
        "prefix_cache_tokens": prefix_cache_tokens,
    }
    question = Question("simulate", problem, asked)
    given = recorded_requests(problem, requests, cache_tokens=prefix_cache_tokens)
    if given is None and prefix_cache_tokens:
        raise InputError("prefix_cache_tokens needs a trace with block hashes; give --trace")
    if replications > 1:
        with progress("simulating") as say:
            runs = replicate(
                system,
                rate,
                replications,
                requests=requests or 20_000,
                seed=seed,
                given=given,
                progress=say,
            )
        emit(runs, format, title=f"{strategy}, {replications} runs", question=question)
        return 0
    with progress("simulating"):
        result = run(
            system,
            rate,
            requests=requests or 20_000,
            seed=seed,
            given=given,
            record_steps=save_detailed is not None,
        )
    if save_detailed is not None:
        import json

        model = problem.model if isinstance(problem.model, str) else "simulated"
        log = to_vllm_detailed(result, model_id=model)
        write_text(save_detailed, json.dumps(log, allow_nan=False))
        talk(f"wrote {save_detailed}")
    if format == "csv":
        columns = {k: v.tolist() for k, v in result.requests().items()}
        rows = zip(*columns.values(), strict=True)
        emit_records([dict(zip(columns, row, strict=True)) for row in rows], "csv")
    else:
        emit(result, format, title=strategy, question=question)
    if format in ("table", "md"):
        use = ", ".join(
            f"{name} {100 * pool.utilisation.mean():.0f} % busy, {pool.batch.mean():.1f} per step"
            for name, pool in zip(
                ("prefill", "decode") if len(result.pools) > 1 else ("replicas",),
                result.pools,
                strict=True,
            )
        )
        if result.cached.size:
            use += f"; {100 * result.hit_share:.0f} % of the prompt tokens cached"
        print(f"\n{result.throughput:.4g} req/s over {result.duration:.4g} s; {use}")
    if result.status is not RunStatus.OK:
        talk(result.status.value)
    return 3 if result.status is RunStatus.ALL_REFUSED else 0
