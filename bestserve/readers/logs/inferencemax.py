"""InferenceMAX / InferenceX aggregates: rows in SECONDS, collocated, disaggregated or AgentX.

Lengths are nominal unless the row states the realised ones. `dp_attention` splits attention over
all GPUs of the tensor-parallel group.
"""

from __future__ import annotations

from typing import Any

from bestserve.readers.logs._build import built, engine_name, keyed_stats
from bestserve.readers.logs._record import MS, Record
from bestserve.readers.tidy import TidyRow
from bestserve.readers.untrusted import Source, keys_of, listed

NAME = "inferencemax"
BARE_CONSTANTS = True  # aggregated with Python's json module

_KEYS = frozenset({"conc", "model", "tput_per_gpu"})
_BLANK = ("", "none", "false", "n/a")


def sniff(source: Source) -> bool:
    """Whether the first row has the concurrency, the model and a throughput per GPU."""
    if source.kind not in ("json", "jsonl"):
        return False
    rows = listed(source.value)
    keys = keys_of(rows[0]) if rows else frozenset()
    return keys >= _KEYS and bool(keys & {"hw", "device"})


def read(source: Source) -> list[TidyRow]:
    """One row a run."""
    rows: list[TidyRow] = []
    for line, value in source.records():
        runs = listed(value)
        for index, run in enumerate(runs):
            several = len(runs) > 1 or source.kind == "jsonl"
            at = f" row {index if source.kind == 'json' else line}" if several else ""
            rows.append(_row(Record.of(run, f"{source.name}{at}", source)))
    return rows


def _row(record: Record) -> TidyRow:
    figures: dict[str, Any] = {}
    for metric in ("ttft", "tpot", "itl", "e2el"):
        figures |= keyed_stats(record, metric, metric, MS)
    split = record.flag("disagg") is True
    fields = _split(record) if split else _shared(record)
    decode_gpus = record.size("num_decode_gpu") if split else fields.get("num_gpus")
    per_gpu = record.number("output_tput_per_gpu")
    total = record.number("output_tput_tps")
    if total is None and per_gpu is not None and decode_gpus:
        total = per_gpu * decode_gpus
    completed, sent = (
        record.count("num_requests_successful"),
        record.count("num_requests_total"),
    )
    duration = record.positive("duration_seconds")
    spec, offload = record.text("spec_decoding"), record.text("offloading")
    return built(
        record.where,
        NAME,
        figures,
        fields={
            "source": "InferenceMAX",
            "date": record.text("date"),
            "model": record.text("model"),
            "gpu": record.text("hw") or record.text("device"),
            "engine": engine_name(record.text("framework")),
            "engine_version": record.text("image"),
            "precision": record.text("precision"),
            "disaggregated": split if "disagg" in record else None,
            "concurrency": record.size("conc"),
            "request_rate": float("inf"),
            "arrivals": "closed",
            "input_len_asked": record.positive("isl"),
            "output_len_asked": record.positive("osl"),
            "input_len_mean": record.positive("mean_input_tokens"),
            "output_len_mean": record.positive("mean_output_tokens_actual"),
            "input_len_std": record.number("std_input_tokens"),
            "output_len_std": record.number("std_output_tokens_actual"),
            "num_prompts": sent,
            "completed": completed,
            "failed": max(sent - completed, 0)
            if sent is not None and completed is not None
            else None,
            "duration": duration,
            "req_throughput": completed / duration if completed and duration else None,
            "out_tok_throughput": total,
            "dataset_or_lengths": record.text("scenario_type"),
            "speculative_decoding": None if spec is None else spec.lower() not in _BLANK,
            **fields,
        },
        notes=(
            "lengths nominal" if "isl" in record and "mean_input_tokens" not in record else None,
            f"KV offloading {offload}" if offload and offload not in _BLANK else None,
            f"speculative decoding {spec}" if spec and spec.lower() not in _BLANK else None,
        ),
    )


def _shared(record: Record) -> dict[str, Any]:
    tp, pp = record.size("tp"), record.size("pp")
    out: dict[str, Any] = {"tp": tp, "pp": pp, "ep": record.size("ep")}
    if tp:
        out["num_gpus"] = tp * (pp or 1) * (record.size("pcp_size") or 1)
        if record.flag("dp_attention"):
            out |= {"attention_dp": tp, "attention_tp": 1}
    return out


def _split(record: Record) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for half in ("prefill", "decode"):
        out[f"{half}_workers"] = record.size(f"{half}_num_workers") or record.size(
            f"{half}_workers"
        )
        for name in ("tp", "pp", "ep"):
            out[f"{half}_{name}"] = record.size(f"{half}_{name}")
        if record.flag(f"{half}_dp_attention"):
            out[f"{half}_attention_dp"] = out[f"{half}_tp"]
    gpus = (record.size("num_prefill_gpu"), record.size("num_decode_gpu"))
    if gpus[0] and gpus[1]:
        out["num_gpus"] = gpus[0] + gpus[1]
    return out
