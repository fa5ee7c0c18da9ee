"""Engine settings as logs, server flags and launch commands spell them, under our names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bestserve.readers.logs._drafts import drafts_of_flags
from bestserve.readers.logs._record import Record
from bestserve.readers.untrusted import Source

_WHOLE: Mapping[str, tuple[str, ...]] = {
    "tp": ("tensor_parallel_size", "tp_size", "tensor_parallel", "tp"),
    "pp": ("pipeline_parallel_size", "pp_size", "pipeline_parallel", "pp"),
    "ep": ("expert_parallel_size", "ep_size", "moe_ep", "ep"),
    "moe_tp": ("moe_tp",),
    "num_gpus": ("num_gpus", "gpu_count", "n_gpus"),
    "max_num_seqs": ("max_num_seqs", "max_running_requests", "max_batch_size"),
    "max_num_batched_tokens": ("max_num_batched_tokens", "max_num_tokens", "chunked_prefill_size"),
    "max_model_len": ("max_model_len", "context_length", "max_seq_len"),
    "stream_interval": ("stream_interval",),
    "num_scheduler_steps": ("num_scheduler_steps",),
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "gpu": ("gpu", "gpu_type", "gpu_name", "accelerator"),
    "engine": ("engine",),
    "engine_version": ("engine_version", "vllm_version", "sglang_version"),
    "precision": ("precision", "quantization"),
    "kv_cache_dtype": ("kv_cache_dtype",),
}
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "chunked_prefill": ("enable_chunked_prefill", "chunked_prefill"),
    "prefix_caching": ("enable_prefix_caching", "prefix_caching"),
    "async_scheduling": ("async_scheduling",),
}
_REALS: Mapping[str, tuple[str, ...]] = {
    "gpu_memory_utilization": ("gpu_memory_utilization", "mem_fraction_static"),
}


def stated_settings(record: Record) -> dict[str, Any]:
    """Settings among the keys of `record`, as `TidyRow` keywords.

    Figures may be text ("8"), as `--metadata tp=8` writes them; "auto" and negative figures mean
    that the engine chose, so they are not stated.
    """
    out: dict[str, Any] = {}
    for group, cast in ((_WHOLE, _whole), (_REALS, _real), (_WORDS, _word), (_FLAGS, _flag)):
        for name, spellings in group.items():
            for key in spellings:
                value = cast(record.data.get(key))
                if value is not None:
                    out[name] = value
                    break
    return out


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= 10**12 else None


def _real(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\d{0,4}\.?\d{1,12}", value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 < value < 1e6 else None


def _word(value: object) -> str | None:
    if not isinstance(value, str) or value.strip().lower() in ("", "auto", "none", "null"):
        return None
    clean = " ".join(value.split())
    return clean if clean.isprintable() and len(clean) <= 200 else None


def _flag(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


_ALIASES = {
    "-tp": "tp",
    "-pp": "pp",
    "--tp": "tp",
    "--pp": "pp",
    "--ep": "ep",
    "--dp": "dp",
    "-dp": "dp",
}
_BARE_TRUE = {
    "enable_chunked_prefill": ("chunked_prefill", True),
    "no_enable_chunked_prefill": ("chunked_prefill", False),
    "enable_prefix_caching": ("prefix_caching", True),
    "no_enable_prefix_caching": ("prefix_caching", False),
    "disable_radix_cache": ("prefix_caching", False),
    "async_scheduling": ("async_scheduling", True),
}


def settings_of_command(command: str) -> dict[str, Any]:
    """Settings stated by a server's launch command (vLLM, SGLang or TensorRT-LLM flags).

    Only flags that are written count: an engine's defaults are not stated. Expert parallelism
    that is enabled without a size (`--enable-expert-parallel`) spans the tensor-parallel group.
    SGLang's `--dp n --enable-dp-attention` splits the group of `--tp` GPUs into n attention
    groups; `--dp n` alone adds replicas.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    flags: dict[str, Any] = {}
    for index, word in enumerate(words):
        if not word.startswith("-") or word.lstrip("-") == "":
            continue
        key, _, value = word.partition("=")
        key = _ALIASES.get(key, key.lstrip("-").replace("-", "_"))
        follows = words[index + 1] if index + 1 < len(words) else ""
        if not value and follows and not follows.startswith("-"):
            value = follows
        flags[key] = value or True
    written = {k: v for k, v in flags.items() if v is not True}
    source = Source(Path("launch command"), "text", text=command)
    out = stated_settings(Record(written, command[:60], source))
    for key, (name, truth) in _BARE_TRUE.items():
        if key in flags and name not in out:
            out[name] = truth
    tp = out.get("tp")
    if "enable_expert_parallel" in flags and tp:
        out.setdefault("ep", tp)
    groups = _whole(flags.get("dp", flags.get("dp_size", flags.get("data_parallel_size"))))
    if groups and "enable_dp_attention" in flags:
        out["attention_dp"] = groups
        if tp and tp % groups == 0:
            out["attention_tp"] = tp // groups
    elif groups:
        out["replicas"] = groups
    if any(isinstance(k, str) and k.startswith("speculative") for k in flags):
        out["speculative_decoding"] = True
    return {**out, **drafts_of_flags(flags)}
