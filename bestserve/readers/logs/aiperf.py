"""AIPerf summary (`profile_export_aiperf.json`), versions 0.8 to 0.13.

Every metric carries its unit. The settings are in `input_config`, whose layout changed from
`loadgen` to a list of `phases`.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import arrivals_of, built
from bestserve.readers.logs._drafts import drafts_of_steps
from bestserve.readers.logs._hits import percent
from bestserve.readers.logs._ramps import longest_ramp, ramped
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._triton import latency_figures, run_fields
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "aiperf"
_KEYS = frozenset({"aiperf_version", "input_config", "request_latency"})


def sniff(source: Source) -> bool:
    """Whether the summary names its AIPerf version and settings."""
    return source.kind == "json" and keys_of(source.value) >= _KEYS


def read(source: Source) -> list[TidyRow]:
    """The one run of the file."""
    record = Record.of(source.value, source.name, source)
    load = _load(record.child("input_config"))
    fields = {**run_fields(record), **load}
    row = built(
        record.where,
        NAME,
        latency_figures(record),
        fields={
            "source": f"AIPerf {record.text('aiperf_version')}",
            "date": record.text("start_time"),
            **drafts_of_steps(record.child("pooled_spec_decode_acceptance_histogram").data),
            "prefix_hit": percent(record, "overall_usage_prompt_cache_read_pct", "avg"),
            **fields,
        },
        notes=("WARNING run was cancelled" if record.data.get("was_cancelled") is True else None,),
    )
    return [ramped(row, longest_ramp(record.data.get("input_config")))]


def _load(config: Record) -> dict[str, Any]:
    """Model, load and asked lengths."""
    phases = [p for p in config.children("phases") if p.text("kind") != "warmup"]
    load = phases[0] if phases else config.child("loadgen")
    rate = load.positive("request_rate") or load.positive("rate")
    concurrency = load.size("concurrency")
    mode = load.text("request_rate_mode") or load.text("arrival_pattern") or load.text("type")
    if mode not in ("poisson", "constant", "gamma"):
        mode = None
    if rate is None and concurrency is None and phases:
        concurrency = None
    out: dict[str, Any] = {
        "model": _model(config),
        "request_rate": float("inf") if rate is None and concurrency else rate,
        "concurrency": concurrency,
        "arrivals": arrivals_of(rate, concurrency, mode),
        "num_prompts": load.size("requests") or load.size("request_count"),
    }
    for data in config.children("datasets"):
        for side, theirs in (("input_len", "isl"), ("output_len", "osl")):
            out[f"{side}_asked"] = data.child("prompts", theirs).positive("mean")
        out["dataset_or_lengths"] = data.text("type")
        break
    for side, theirs in (("input_len", "input_tokens"), ("output_len", "output_tokens")):
        asked = config.child("input", "prompt", theirs).positive("mean")
        if asked is not None:
            out[f"{side}_asked"] = asked
    public = config.child("input").text("public_dataset")
    if public:
        out["dataset_or_lengths"] = public
    return {name: value for name, value in out.items() if value is not None}


def _model(config: Record) -> str | None:
    for item in config.child("models").children("items"):
        return item.text("name")
    names = config.child("endpoint").data.get("model_names")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return Record({"name": names[0]}, config.where, config.source).text("name")
    return None
