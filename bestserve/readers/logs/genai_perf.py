"""GenAI-Perf summary (`profile_export_genai_perf.json`), 0.0.16: AIPerf's predecessor."""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import arrivals_of, built
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._triton import latency_figures, run_fields
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "genai-perf"


def sniff(source: Source) -> bool:
    """Whether the settings hold a `perf_analyzer` section."""
    keys = keys_of(source.value)
    return (
        source.kind == "json"
        and keys >= {"input_config", "request_latency"}
        and "perf_analyzer" in keys_of(source.value["input_config"])
    )


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    config = record.child("input_config")
    stimulus = config.child("perf_analyzer", "stimulus")
    concurrency, rate = stimulus.size("concurrency"), stimulus.positive("request_rate")
    names = config.data.get("model_names")
    fields: dict[str, Any] = run_fields(record)
    name = names[0] if isinstance(names, list) and names else None
    return [
        built(
            record.where,
            NAME,
            latency_figures(record),
            fields={
                **fields,
                "source": "GenAI-Perf",
                "model": Record({"model": name}, config.where, source).text("model"),
                "concurrency": concurrency,
                "request_rate": float("inf") if rate is None and concurrency else rate,
                "arrivals": arrivals_of(rate, concurrency, None),
                "input_len_asked": config.child("input", "synthetic_tokens").positive("mean"),
                "output_len_asked": config.child("input", "output_tokens").positive("mean"),
            },
        )
    ]
