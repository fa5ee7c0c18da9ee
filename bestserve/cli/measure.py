"""`bestserve measure`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from bestserve.cli.flags import Format, Many
from bestserve.cli.output import emit_records
from bestserve.cli.talk import progress, talk
from bestserve.errors import InputError


def measure(
    model: str = "meta-llama/Llama-3.1-8B",
    *,
    tensor_parallel_size: int = 1,
    device: str = "auto",
    hardware: str = "",
    precision: Literal["bf16", "fp8"] = "bf16",
    layers: int = 0,
    kv_tokens: int = 0,
    time_budget: float = 240.0,
    output: str = "measured",
    request_rate: Annotated[list[float] | None, Many] = None,
    max_concurrency: Annotated[list[int] | None, Many] = None,
    num_prompts: int = 200,
    input_len: float = 512.0,
    output_len: float = 64.0,
    format: Format = "table",
) -> int:
    """Measure a GPU: kernels, layers, launches and the constants behind them.

    Writes a journal (a second call resumes it), a hardware record and a calibration record, which
    the other commands take as --hardware and --calibration. With --request-rate or
    --max-concurrency it then serves requests on the measured layers and logs them as
    `vllm bench serve` does. Without a GPU it runs a self-test whose figures describe no GPU.

    Parameters
    ----------
    model
        whose layer is measured: bundled name or path of a config.json
    tensor_parallel_size
        GPUs that would share the model; one of them is measured
    device
        auto, cpu, cuda or cuda:N
    hardware
        record that peak and bandwidth come from; default: found by the driver's name
    precision
        weight format of the layers
    layers
        decoder layers in memory; default: enough to sweep the cache, at least 4
    kv_tokens
        batch × context at most; default 524288
    time_budget
        stop measuring after this long and fit what is there [s]
    output
        folder of journal, records and logs
    request_rate
        Poisson loads to serve afterwards [req/s]
    max_concurrency
        closed loops to serve afterwards [clients]
    num_prompts
        requests of each load
    input_len
        mean prompt of the loads, geometric [tokens]
    output_len
        mean answer of the loads, geometric [tokens]
    """
    from bestserve.measure.device_info import SELF_TEST_BANNER
    from bestserve.measure.records import comparison
    from bestserve.measure.session import Load, Options
    from bestserve.measure.session import measure as run_campaign

    if time_budget <= 0:
        raise InputError(f"time_budget = {time_budget} must be positive seconds")
    options = Options(
        model=model,
        tp=tensor_parallel_size,
        device=device,
        hardware=hardware,
        fmt=precision,
        layers=layers,
        kv_tokens=kv_tokens,
        time_budget=time_budget,
        output=Path(output),
    )
    load = partial(Load, requests=num_prompts, input_len=input_len, output_len=output_len)
    # Closed loops come first: they fill the batch, so the step time is fitted where it matters.
    loads = [
        *(load(concurrency=clients) for clients in max_concurrency or ()),
        *(load(rate=rate) for rate in request_rate or ()),
    ]
    with progress("measuring") as say:
        session = run_campaign(options, lambda done, total, key: say(f"{done}/{total} {key}"))
    if session.info.self_test:
        talk(SELF_TEST_BANNER)
    outcome = session.outcome
    rows = comparison(session.analysis)
    emit_records(rows, format, f"{session.info.name}: constants of the operator forms")
    talk(
        f"{outcome.measured} points measured, {outcome.resumed} taken from the journal"
        + (f", {outcome.left} left: call again to go on" if outcome.left else "")
    )
    for path in (session.hardware, session.calibration, session.journal):
        talk(f"wrote {path}")
    if loads:
        from bestserve.measure.session import serve_loads

        with progress("serving"):
            rows, paths = serve_loads(options, loads)
        for path in paths:
            talk(f"wrote {path}")
        if format in ("table", "md"):
            print()
            emit_records(rows, format, "Serving loop: measured and simulated latencies")
    return 0
