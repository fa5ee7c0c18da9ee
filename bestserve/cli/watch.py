"""`bestserve watch`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bestserve.cli.flags import Format
from bestserve.cli.options import ProblemOptions
from bestserve.cli.output import emit_explained
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError

if TYPE_CHECKING:
    from bestserve.readers.metrics.live import LiveMetrics
    from bestserve.specs.problem import Problem


def watch(
    *sources: str,
    strategy: str | None = None,
    options: ProblemOptions | None = None,
    window: float | None = None,
    timeout: float = 5.0,
    save_workload: str | None = None,
    save_run: str | None = None,
    format: Format = "table",
) -> int:
    """Look at a running server: how far it is from its goodput, and whether it does as predicted.

    Parameters
    ----------
    sources
        address of a server's /metrics (http://host:8000), of a Prometheus query range, or files:
        dumps of /metrics in order, a Prometheus answer in JSON
    strategy
        what runs: 2m-tp4, 3p2d-tp4; without it the server's figures are printed alone
    options
        the problem; lengths, gaps and cache hits are the server's where no flag states them
    window
        seconds to look, 30 by default; with dumps, the time between the first and the last
    timeout
        seconds a request may take
    save_workload
        problem file to write (TOML) with what the server saw; commands take it with --problem
    save_run
        measured run to write (tidy CSV), which validate and calibrate read
    """
    from bestserve.answers.watch import watched
    from bestserve.host.writing import check_target
    from bestserve.readers.metrics.reading import read_metrics
    from bestserve.results.watched import Observed

    for path, flag in ((save_workload, "--save-workload"), (save_run, "--save-run")):
        if path is not None:
            check_target(path, flag)
    with progress("looking"):
        live = read_metrics(*sources, window=window, timeout=timeout)
    asked = options or ProblemOptions()
    if save_workload is not None:
        _write_workload(save_workload, live, asked)
    if strategy is None:
        if save_run is not None:
            raise InputError("--save-run needs --strategy: a run without its GPUs says nothing")
        emit_explained(Observed(live=live), format)
        return 0
    problem = with_live(asked, live).build(strategy)
    found = watched(live, problem, strategy)
    if save_run is not None:
        _write_run(save_run, live, problem, strategy)
    emit_explained(found, format)
    return 0 if found.load <= 1 else 3


def with_live(options: ProblemOptions, live: LiveMetrics) -> ProblemOptions:
    """Return the options with what the server says where no flag and no file does."""
    from bestserve.answers.watch import workload_of
    from bestserve.readers.mappings import read_mapping

    filed = read_mapping(options.problem) if options.problem else {}
    changes: dict[str, Any] = {}
    if options.model is None and "model" not in filed and live.model:
        changes["model"] = live.model
    engine = ENGINES.get(live.server)
    if options.engine is None and "engine" not in filed and engine:
        changes["engine"] = engine
    if options.input_len is None and options.output_len is None and options.trace is None:
        seen = workload_of(live)
        changes |= {"input_len": _text(seen.input_len), "output_len": _text(seen.output_len)}
        for name in ("burstiness", "prefix_cache_hit"):
            if getattr(options, name) is None:
                changes[name] = getattr(seen, name)
    return replace(options, **changes)


ENGINES = {"vLLM": "vllm", "SGLang": "sglang", "TensorRT-LLM": "tensorrt-llm"}


def _text(law: Any) -> str:
    return str(law.tokens) if law.kind == "fixed" else f"lognormal:{law.mean:.6g},{law.cv:g}"


def _write_workload(path: str, live: LiveMetrics, options: ProblemOptions) -> None:
    import tomli_w

    from bestserve.answers.watch import workload_of
    from bestserve.host.writing import write_text

    seen = workload_of(live)
    stated = ("input_len", "output_len", "burstiness", "prefix_cache_hit")
    workload = seen.model_dump(mode="json", include=set(stated))
    model = options.model or live.model
    engine = options.engine or ENGINES.get(live.server)
    document = {k: v for k, v in (("model", model), ("engine", engine)) if v}
    write_text(path, tomli_w.dumps({**document, "workload": workload}))
    talk(f"workload written to {path}")


def _write_run(path: str, live: LiveMetrics, problem: Problem, strategy: str) -> None:
    """Write what was seen as one measured run."""
    from bestserve.host.writing import write_text
    from bestserve.results.rows import csv_text
    from bestserve.specs.strategy import Strategy

    parsed = Strategy.parse(strategy)
    if parsed.disaggregated:
        raise InputError("--save-run writes runs of collocated strategies")
    pool = parsed.pools[0]
    assert live.input_len is not None
    assert live.output_len is not None
    per_token = live.tpot or live.itl
    row = {
        "id": "watched",
        "source": "bestserve watch",
        "regime": "open_loop_steady",
        "model": str(problem.model),
        "gpu": str(problem.hardware),
        "num_gpus": parsed.gpus,
        "engine": live.server,
        "tp": pool.tp,
        "dp_or_replicas": str(pool.replicas),
        "input_len_mean": live.input_len.mean,
        "output_len_mean": live.output_len.mean,
        "request_rate": live.request_rate,
        "concurrency": None,
        "req_throughput": live.request_rate,
        "ttft_mean_ms": None if live.ttft is None else live.ttft.mean * 1e3,
        "tpot_mean_ms": None if per_token is None else per_token.mean * 1e3,
        "notes": "means of a live server",
    }
    write_text(path, csv_text([row]))
    talk(f"run written to {path}: validate and calibrate read it")
