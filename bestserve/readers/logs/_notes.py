"""Settings that the `notes` and free-text columns of the tidy CSV state, as `TidyRow` keywords.

Only what a note says is taken. What is known about a source from elsewhere (the protocol of a
benchmark suite, say) is not a property of its rows and belongs to the replay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bestserve.readers.logs._drafts import drafts_of_note
from bestserve.readers.logs._settings import settings_of_command

_NUMBER = r"(\d+(?:\.\d+)?)"
Found = dict[str, Any]


def _whole(*names: str) -> Callable[[re.Match[str]], Found]:
    """Keywords from the groups of a match; zero means that the source has no such thing."""
    return lambda m: {
        name: int(text)
        for name, text in zip(names, m.groups(), strict=True)
        if text is not None and int(text) > 0
    }


def _const(**found: Any) -> Callable[[re.Match[str]], Found]:
    return lambda m: dict(found)


def _prefill(m: re.Match[str]) -> Found:
    half, ep, batch = m.group(1), int(m.group(2)), int(m.group(3))
    out = {f"{half}_ep": ep, f"{half}_batch_size": batch}
    return {name: value for name, value in out.items() if value > 0}


_NOTES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Found]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), take)
    for pattern, take in (
        (r"\bmax_num_seqs (\d+)", _whole("max_num_seqs")),
        (r"\bmax_num_batched_tokens (\d+)", _whole("max_num_batched_tokens")),
        (r"^max_num_tokens=(\d+)$", _whole("max_num_batched_tokens")),
        (r"\bmax_model_len (\d+)", _whole("max_model_len")),
        (r"\bnum_scheduler_steps (\d+)", _whole("num_scheduler_steps")),
        (r"\bstream[ _]interval (\d+)", _whole("stream_interval")),
        (r"\bkv[ _]cache[ _]dtype (\w+)", lambda m: {"kv_cache_dtype": m.group(1)}),
        (r"\bchunked_prefill (true|false)", lambda m: {"chunked_prefill": m[1].lower() == "true"}),
        (r"\bprefix_caching (true|false)", lambda m: {"prefix_caching": m[1].lower() == "true"}),
        (r"^chunked_context=(true|false)$",
         lambda m: {"chunked_prefill": m[1].lower() == "true"}),
        (rf"\bgpu_memory_utilization {_NUMBER}",
         lambda m: {"gpu_memory_utilization": float(m[1])}),
        (r"^(?:prefix caching|radix cache default) on\b", _const(prefix_caching=True)),
        (r"^P2P pull of the whole prefix\b", _const(prefix_fetched=True)),
        (r"\bfp8 KV\b", _const(kv_cache_dtype="fp8")),
        (r"^speculative (?!none\b)\S", _const(speculative_decoding=True)),
        (r"^moe_tp (\d+) moe_ep (\d+)$", _whole("moe_tp", "ep")),
        (r"^(prefill|decode) moe_tp \d+ moe_ep (\d+) bs (\d+)$", _prefill),
        (r"^batch_size col (\d+)$", _whole("batch_size")),
        (r"\b(\d+) prompts completed (\d+)$", _whole("num_prompts", "completed")),
        (r"^sglang\.bench_serving (\d+) requests$", _whole("num_prompts")),
        (r"^(\d+) (?:requests|prompts)$", _whole("num_prompts")),
        (r"^Poisson arrivals, (\d+) requests", _whole("num_prompts")),
        (r"^burst of (\d+) simultaneous requests$", _whole("num_prompts")),
        (r"^Poisson arrivals", _const(arrivals="poisson", burstiness=1.0)),
        (r"^constant-rate arrivals", _const(arrivals="constant")),
        (rf"^scheduled {_NUMBER} req/s$", lambda m: {"achieved_rate": float(m[1])}),
        (rf"^elapsed {_NUMBER}s$", lambda m: {"duration": float(m[1])}),
        (rf"^{_NUMBER} s stages$", lambda m: {"send_duration": float(m[1])}),
        (rf"^e2e mean {_NUMBER}s p99 {_NUMBER}s$",
         lambda m: {"e2el_mean_ms": float(m[1]) * 1e3, "e2el_p99_ms": float(m[2]) * 1e3}),
        (r"^routing(?: policy|:) ([\w-][\w -]*[\w-])", lambda m: {"routing": m.group(1)}),
        (r"\bin-process\b", _const(in_process=True)),
        (r"\(V0 engine\)$", _const(engine_generation="V0")),
        (r"^SATURATED\b", _const(saturated=True)),
        (r"^lengths nominal$", _const(range_ratio=1.0)),
    )
)  # fmt: skip
_COUNTS = re.compile(r"^success (\d+) failures (\d+)$")
_TIMES_CONCURRENCY = re.compile(r"^(\d+) x concurrency prompts$")
_COMMAND = re.compile(r"^(?:cmd|args): (.+)$|^speculative (--speculative.+)$")
_MEDIAN_ITL = re.compile(rf"^median ITL {_NUMBER} ms$")
_RANGE = re.compile(rf"RANDOM_RANGE_RATIO {_NUMBER}")


def settings_of_notes(notes: tuple[str, ...], concurrency: int | None) -> Found:
    """Settings stated by the notes of one row."""
    out: Found = {}
    more: dict[str, float] = {}
    for note in notes:
        for pattern, take in _NOTES:
            match = pattern.search(note)
            if match:
                out.update(take(match))
        out.update(drafts_of_note(note))
        if match := _COUNTS.search(note):
            out["completed"], out["failed"] = int(match[1]), int(match[2])
            out["num_prompts"] = out["completed"] + out["failed"]
        if (match := _TIMES_CONCURRENCY.search(note)) and concurrency:
            out["num_prompts"] = int(match[1]) * concurrency
        if match := _COMMAND.search(note):
            stated = settings_of_command(match[1] or match[2])
            out.update({k: v for k, v in stated.items() if k not in out})
        if match := _MEDIAN_ITL.search(note):
            more["itl_p50_ms"] = float(match[1])
        if match := _RANGE.search(note):
            out["range_ratio"] = float(match[1])
    if more:
        out["more"] = more
    return out


_NOMINAL = re.compile(r"^random (?:nominal )?(\d+)/(\d+)\b")
_SHARED_CONSTANT = re.compile(
    r"^shared_prefix (\d+)x(\d+) prompts, system (\d+) \+ question (\d+), out (\d+)"
)
_SHARED = re.compile(
    r"^shared_prefix: (\d+) groups x(\d+), system (\d+) \+ question (\d+), out (\d+)"
)
_MEDIANS = re.compile(r"nominal in p50 (\d+), out p50 (\d+)")
_MAX_OUT = re.compile(r"\bmax_out (\d+)\b")
_PROMPTS = re.compile(r"^ShareGPT (\d+) (?:prompts|requests)\b")


def settings_of_lengths(text: str | None) -> Found:
    """Asked lengths, shared prefixes and prompt counts in `dataset_or_lengths`."""
    out: Found = {}
    if text is None:
        return out
    if match := _NOMINAL.match(text):
        out |= {"input_len_asked": float(match[1]), "output_len_asked": float(match[2])}
        if "sampled uniformly up to max" in text:
            out["range_ratio"] = 0.0
    if match := _SHARED.match(text) or _SHARED_CONSTANT.match(text):
        groups, each, prefix, question, output = (int(x) for x in match.groups())
        out |= {
            "prefix_groups": groups,
            "prefix_prompts": each,
            "prefix_len": float(prefix),
            "input_len_asked": float(prefix + question),
            "output_len_asked": float(output),
        }
        if "constant rate" in text:
            out["arrivals"] = "constant"
    if match := _PROMPTS.match(text):
        out["num_prompts"] = int(match[1])
    if match := _MEDIANS.search(text):
        out |= {"input_len_p50": float(match[1]), "output_len_p50": float(match[2])}
    if match := _MAX_OUT.search(text):
        out["output_len_max"] = float(match[1])
    if "EOS honoured" in text:
        out["ignore_eos"] = False
    elif "ignore_eos" in text:
        out["ignore_eos"] = True
    if "Poisson arrivals" in text:
        out |= {"arrivals": "poisson", "burstiness": 1.0}
    if "arrival times" in text:
        out["arrivals"] = "trace"
    return out


_PD_WORKERS = re.compile(r"^y (\d+)P(\d+)D$", re.IGNORECASE)
_PD_PAIR = re.compile(r"P(\d+)/D(\d+)$")
_COUNT_WORD = re.compile(r"^(\d+)$")
_ATTENTION_DP_IS = re.compile(r"^attention_dp=(\d+)$")
_ATTENTION_DP = re.compile(r"^(\d+) \(attention DP( inside TP group)?\)$")


def settings_of_parallelism(cells: Mapping[str, str]) -> Found:
    """Parallelism from the `tp`, `pp`, `dp_or_replicas` and `disaggregated` columns."""
    out: Found = {}
    for name in ("tp", "pp"):
        text = cells.get(name, "")
        if match := _PD_PAIR.match(text):
            out |= {f"prefill_{name}": int(match[1]), f"decode_{name}": int(match[2])}
    text = cells.get("dp_or_replicas", "")
    if match := _COUNT_WORD.match(text):
        out["replicas"] = int(match[1])
    elif match := _ATTENTION_DP_IS.match(text):
        out["attention_dp"] = int(match[1])
    elif text.startswith("attention_dp ") and (match := _PD_PAIR.search(text)):
        out |= {"prefill_attention_dp": int(match[1]), "decode_attention_dp": int(match[2])}
    elif match := _ATTENTION_DP.match(text):
        out["attention_dp"] = int(match[1])
        tp = cells.get("tp", "")
        if tp.isdecimal() and int(tp) % out["attention_dp"] == 0:
            out["attention_tp"] = int(tp) // out["attention_dp"]
    if match := _PD_WORKERS.match(cells.get("disaggregated", "")):
        out |= {"prefill_workers": int(match[1]), "decode_workers": int(match[2])}
        out.pop("replicas", None)  # counts both kinds of worker
        if cells.get("tp", "").isdecimal():
            out |= {"prefill_tp": int(cells["tp"]), "decode_tp": int(cells["tp"])}
    return {name: value for name, value in out.items() if value > 0}
