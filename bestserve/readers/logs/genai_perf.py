"""GenAI-Perf summary (`profile_export_genai_perf.json`), 0.0.5 to 0.0.16: AIPerf's predecessor.

Up to 0.0.11 `input_config` is the flat list of the command's arguments; later ones nest them.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import arrivals_of, built
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._triton import latency_figures, run_fields
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "genai-perf"

_ARGUMENTS = frozenset({"concurrency", "request_rate", "output_tokens_mean"})
"""Among the arguments that earlier versions wrote."""


def sniff(source: Source) -> bool:
    """Whether the settings hold a `perf_analyzer` section, or the arguments of earlier versions."""
    if source.kind != "json" or not keys_of(source.value) >= {"input_config", "request_latency"}:
        return False
    config = keys_of(source.value["input_config"])
    return "perf_analyzer" in config or config >= _ARGUMENTS


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    config = record.child("input_config")
    flat = "perf_analyzer" not in config
    stimulus = config if flat else config.child("perf_analyzer", "stimulus")
    concurrency, rate = stimulus.size("concurrency"), stimulus.positive("request_rate")
    names = config.data.get("model" if flat else "model_names")
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
                **_asked(config, flat=flat),
            },
        )
    ]


def _asked(config: Record, *, flat: bool) -> dict[str, float | None]:
    """Nominal lengths; earlier versions write -1 where the server decides."""
    if not flat:
        given = config.child("input")
        inputs = given.child("synthetic_tokens").positive("mean")
        return {
            "input_len_asked": inputs,
            "output_len_asked": given.child("output_tokens").positive("mean"),
        }
    out: dict[str, float | None] = {}
    for ours, theirs in (("input", "synthetic_input_tokens"), ("output", "output_tokens")):
        value = config.data.get(f"{theirs}_mean")
        stated = isinstance(value, int | float) and value > 0
        out[f"{ours}_len_asked"] = config.number(f"{theirs}_mean") if stated else None
    return out
