"""SGLang `bench_serving`: JSONL, one run a line, appended to by every run.

`server_info`, in newer versions, holds every server flag: the parallelism, the caps, and, behind
a router of prefill and decode servers, both halves. It does not name the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestserve.readers.logs._build import (
    arrivals_of,
    built,
    completed_figures,
    detailed,
    keyed_stats,
    mean_of,
    silent_note,
    spread,
)
from bestserve.readers.logs._drafts import drafts, drafts_of_flags
from bestserve.readers.logs._hits import attached
from bestserve.readers.logs._record import Record
from bestserve.readers.logs._settings import stated_settings
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of

NAME = "sglang-bench-serving"
BARE_CONSTANTS = True  # request_rate is a bare Infinity

_KEYS = frozenset(
    {"backend", "dataset_name", "random_input_len", "request_rate", "completed", "duration"}
)
_UNIFORM = ("random", "random-ids")


def sniff(source: Source) -> bool:
    """Whether the first record has the keys that every version writes."""
    return source.kind in ("json", "jsonl") and keys_of(source.value) >= _KEYS


def lacking(source: Source) -> str:
    """Return which other benchmark of SGLang wrote a file."""
    keys = keys_of(source.value) if source.kind in ("json", "jsonl") else frozenset()
    if keys >= {"successful_requests", "total_latency", "last_gen_throughput"}:
        return "written by SGLang's bench_offline_throughput: no latencies; take bench_serving"
    return ""


def read(source: Source) -> list[TidyRow]:
    """One row a line."""
    rows = [
        _row(Record.of(value, f"{source.name} line {line}", source))
        for line, value in source.records()
    ]
    return attached(rows, source)


def _row(record: Record) -> TidyRow:
    completed = record.count("completed")
    rate = record.positive("request_rate", inf=True)
    concurrency = record.size("max_concurrency")
    total_out = record.number("total_output_tokens")
    printed: dict[str, Any] = {}
    for metric, theirs in (
        ("ttft", "ttft_ms"),
        ("tpot", "tpot_ms"),
        ("itl", "itl_ms"),
        ("e2el", "e2e_latency_ms"),
    ):
        printed |= keyed_stats(record, metric, theirs)
    if completed and total_out is not None and total_out <= completed:
        printed = {k: v for k, v in printed.items() if not k.startswith(("tpot", "itl"))}
    requests, silent = detailed(record)
    tag = record.text("tag")
    backend = record.text("backend")
    return built(
        record.where,
        NAME,
        completed_figures(printed, requests, silent),
        fields={
            "source": "SGLang bench_serving",
            "dataset_or_lengths": record.text("dataset_name"),
            "request_rate": rate,
            "concurrency": concurrency,
            "mean_concurrency": record.number("concurrency"),
            "arrivals": arrivals_of(rate, concurrency, "poisson"),
            "completed": completed,
            "duration": record.number("duration"),
            "req_throughput": record.number("request_throughput"),
            "out_tok_throughput": record.number("output_throughput"),
            "input_len_mean": mean_of(record.number("total_input_tokens"), completed),
            "output_len_mean": mean_of(total_out, completed),
            "requests": requests,
            **_asked(record),
            **spread(requests),
            **_server(record, backend),
        },
        notes=(
            silent_note(silent),
            f"client backend {backend}" if backend else None,
            f"tag {tag}" if tag else None,
        ),
    )


def _asked(record: Record) -> dict[str, Any]:
    """Lengths asked of the `random` data set: uniform between range_ratio · maximum and it."""
    if record.text("dataset_name") not in _UNIFORM:
        return {}
    out: dict[str, Any] = {"range_ratio": record.number("random_range_ratio")}
    ratio = out["range_ratio"]
    for side in ("input", "output"):
        highest = record.positive(f"random_{side}_len")
        out[f"{side}_len_asked"] = highest
        if highest is not None and ratio is not None and ratio <= 1 and highest >= 1:
            out[f"{side}_len_range"] = (max(1.0, float(int(highest * ratio))), highest)
    return out


def _server(record: Record, backend: str | None) -> dict[str, Any]:
    """What the server says about itself; the native back end means that it is SGLang."""
    out: dict[str, Any] = {}
    if backend == "sglang":
        out["engine"] = "SGLang"
    length = record.number("accept_length")
    if length:
        out["speculative_decoding"] = True
    accepted = drafts(length=length)
    info = record.child("server_info")
    halves = {half: list(info.children(half)) for half in ("prefill", "decode")
              if isinstance(info.data.get(half), list)}  # fmt: skip
    if halves.get("prefill") and halves.get("decode"):
        flags = {half: _flags(servers[0]) for half, servers in halves.items()}
        for half, servers in halves.items():
            out[f"{half}_workers"] = len(servers)
            for name in ("tp", "pp", "ep", "attention_dp"):
                out[f"{half}_{name}"] = flags[half].pop(name, None)
        alike = {k: v for k, v in flags["decode"].items() if flags["prefill"].get(k) == v}
        out |= accepted
        for name in ("replicas", "num_gpus", "attention_tp"):
            alike.pop(name, None)
        out |= {k: v for k, v in alike.items() if k not in out}
        return {**out, "disaggregated": True}
    states = [
        Record.of(state, f"{info.where} internal_states", record.source)
        for state in _list(info.data.get("internal_states"))
        if isinstance(state, Mapping)
    ]
    server = info if "tp_size" in info.data else states[0] if states else info
    own = _flags(server)
    if server.text("disaggregation_mode") == "null":
        own["disaggregated"] = False
    return {**out, **own, **accepted}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _flags(server: Record) -> dict[str, Any]:
    """Server flags under our names."""
    out = stated_settings(server)
    out["model"] = server.text("model_path")
    out["engine_version"] = server.text("version")
    radix_off = server.data.get("disable_radix_cache")
    if isinstance(radix_off, bool):
        out["prefix_caching"] = not radix_off
    if server.text("speculative_algorithm"):
        out["speculative_decoding"] = True
    out |= drafts_of_flags(server.data)
    groups = server.size("dp_size")
    if server.data.get("enable_dp_attention") is True and groups:
        out["attention_dp"] = groups
        if out.get("tp") and out["tp"] % groups == 0:
            out["attention_tp"] = out["tp"] // groups
    elif groups:
        out["replicas"] = groups
    if out.get("tp") and out.get("pp") and groups and "attention_dp" not in out:
        out["num_gpus"] = out["tp"] * out["pp"] * groups
    return {k: v for k, v in out.items() if v is not None}
