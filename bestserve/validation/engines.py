"""Which engine preset a row's engine and version mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from bestserve.readers.tidy import TidyRow
from bestserve.validation.outcome import Outcome, UnpredictableError

_FAMILIES: tuple[tuple[str, str], ...] = (
    ("tensorrt-llm", r"tensorrt[-_ ]?llm|trt[-_ ]?llm|trtllm|tensorrt"),
    ("sglang", r"sglang"),
    ("tgi", r"\btgi\b|text[-_ ]generation[-_ ]inference"),
    ("vllm", r"vllm|aphrodite"),
)
_COMMAND = re.compile(
    r"\b(vllm serve|vllm\.entrypoints|sglang\.launch_server|sglang serve|trtllm-serve)\b"
)
_VERSION = re.compile(r"(?<![\d.])v?(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Preset name, and what was assumed to choose it ("" if the row says it all)."""

    preset: str
    family: str
    version: tuple[int, int] | None
    note: str = ""


def engine_family(text: str) -> str:
    """Return "vllm", "sglang", "tensorrt-llm" or "tgi" for a spelling, or an empty string.

    >>> engine_family("dynamo-trt")
    'tensorrt-llm'
    """
    lowered = text.lower().replace("dynamo-trt", "tensorrt")
    return next((name for name, pattern in _FAMILIES if re.search(pattern, lowered)), "")


def engine_version(text: str | None) -> tuple[int, int] | None:
    """Return (major, minor) of a version text, or None.

    >>> engine_version("0.6.3.post2.dev308+gb489fc3c")
    (0, 6)
    """
    match = _VERSION.search(text or "")
    return (int(match[1]), int(match[2])) if match else None


def full_version(text: str | None) -> tuple[int, int, int] | None:
    """Return (major, minor, patch) of a version text, or None.

    >>> full_version("0.5.6.post2")
    (0, 5, 6)
    """
    match = _VERSION.search(text or "")
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def choose_engine(row: TidyRow) -> EngineChoice:
    """Return the preset of a row's engine and version. Raises `UnpredictableError`.

    Without a version the row's date decides between the generations of vLLM; without either, the
    current one is taken.
    """
    text = row.engine or _COMMAND.search("; ".join(row.notes))
    if text is None:
        raise UnpredictableError(Outcome.ENGINE_UNKNOWN, "not stated; give --engine")
    name = text if isinstance(text, str) else text[1]
    family = engine_family(name)
    if not family:
        raise UnpredictableError(Outcome.ENGINE_UNKNOWN, name[:60])
    version = engine_version(row.engine_version)
    if version is None and re.search(r"\bV1\b", row.engine_version or ""):
        version = V1
    if family == "vllm":
        return _vllm(row, version)
    if family == "tgi":
        # No preset of its own: a prefill-priority scheduler of vLLM V0's kind.
        return EngineChoice("vllm-v0", family, version, "TGI predicted with the vLLM V0 preset")
    return EngineChoice(family, family, version)


def scheduled_ahead(choice: EngineChoice) -> EngineChoice:
    """Return the preset with the host of asynchronous scheduling, which 0.14.0 made the default."""
    if choice.preset != "vllm-0.11":
        return choice
    note = "asynchronous scheduling: the host time of versions where it is the default"
    return replace(choice, preset="vllm", note="; ".join(filter(None, (choice.note, note))))


MOST_SEQUENCES = 65_536
"""Running sequences beyond which a stated limit limits nothing."""

TGI_LIMITS = {
    "max_num_seqs": MOST_SEQUENCES, "max_num_batched_tokens": 4096, "kv_reserve": 1.0,
}  # fmt: skip
"""TGI's defaults: sequences limited by memory alone, 4,096 prompt tokens a step, room for the whole
answer reserved at admission."""

FUSED_SINCE = (1, 1)
"""TensorRT-LLM version from which inputs of fp8 GEMMs are quantised in the kernel ahead: a decode
step of Qwen3-32B under 1.0 takes 14 µs a layer more, whatever the batch, four launches of 3 to 4
µs; Llama-3.1-70B half a year later takes none."""

QUANTISE_LAUNCH = 3e-6
"""One launch in a CUDA graph [s], as of the other small kernels (`elementwise.launch`)."""


def tensorrt_settings(row: TidyRow, choice: EngineChoice) -> dict[str, object]:
    """Return what this version of TensorRT-LLM, or the row, sets otherwise than the preset."""
    out: dict[str, object] = {"policy": "chunked"} if row.chunked_prefill else {}
    if choice.version is not None and choice.version < FUSED_SINCE:
        out["quantise_launch"] = QUANTISE_LAUNCH
    return out


V1, LEAN = (0, 8), (0, 14)
"""vLLM versions with a new engine core: V1 became the default; host work left the step's path
(release notes of 0.14.0: asynchronous scheduling on by default)."""

_DATES = ((V1, "2025-03"), (LEAN, "2026-02"))
"""When those versions were current: for rows that state a date and no version."""

MIDDLE = "07"
"""Month that stands for a date which is a year alone."""


def _vllm(row: TidyRow, version: tuple[int, int] | None) -> EngineChoice:
    note = ""
    if version is not None:
        era = sum(version >= first for first in (V1, LEAN))
    elif row.date:
        era = sum(f"{row.date}-{MIDDLE}"[:7] >= month for _, month in _DATES)
        note = f"vLLM version not stated: taken from the date {row.date[:10]}"
    else:
        era, note = 2, "vLLM version not stated: the current one assumed"
    # V1 has no multi-step scheduling, so whoever states the number of steps runs V0.
    if (row.engine_generation or "").upper() == "V0" or (row.num_scheduler_steps or 1) > 1:
        era, note = 0, ""
    return EngineChoice(("vllm-v0", "vllm-0.11", "vllm")[era], "vllm", version, note)
