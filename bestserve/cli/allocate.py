"""`bestserve allocate`."""

from __future__ import annotations

from bestserve.cli.files import read_mapping
from bestserve.cli.output import Format, emit, progress


def allocate(
    fleet: str,
    *,
    objective: str | None = None,
    gap: float = 0.01,
    seconds: float = 60.0,
    jobs: int = 1,
    verify: bool = True,
    certify: bool = True,
    slo_step_ms: float | None = None,
    format: Format = "table",
) -> int:
    """Allocate a fleet: which GPUs run which model, in which role, at which parallelism.

    Parameters
    ----------
    fleet
        TOML, YAML or JSON file with gpus, models, their request classes, and limits
    objective
        max_goodput, min_cost or max_headroom, instead of the file's
    gap
        relative gap at which the search ends
    seconds
        time limit of the search; the best plan so far is printed with its gap
    jobs
        processes that make the goodput tables and solve again for marginal values
    verify
        simulate the plan, and tighten the tables where it falls short
    certify
        also solve for one more GPU and node of each type and for uniform strategies
    slo_step_ms
        also solve with all objectives looser by so many milliseconds
    format
        table, json, csv, md or html
    """
    from joblib import parallel_config

    from bestserve.fleet import allocate as answer
    from bestserve.specs.fleet import Fleet

    fields = read_mapping(fleet)
    if objective is not None:
        fields["objective"] = objective
    question = Fleet(**fields)
    step = None if slo_step_ms is None else slo_step_ms / 1e3
    with parallel_config(n_jobs=jobs), progress("allocating") as say:
        found = answer(
            question,
            gap=gap,
            seconds=seconds,
            verify=verify,
            certify=certify,
            slo_step=step,
            progress=say,
        )
    emit(found, format)
    if format in ("table", "md"):
        print()
        print(found.explain())
    return 0
