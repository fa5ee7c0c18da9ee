"""Quantised checkpoints are named after their base model: "-FP8", "-AWQ", ".w8a8"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bestserve.models.step.device import Precision
from bestserve.specs.model import KvDtype

# Publishers whose "-FP8" checkpoints scale 128x128 blocks (their quantization_config states
# weight_block_size); everybody else's scale per tensor or per channel.
BLOCK_FP8_PUBLISHERS = frozenset(
    ("qwen", "deepseek-ai", "zai-org", "minimaxai", "moonshotai", "stepfun-ai", "xiaomimimo")
)

_SUFFIX = re.compile(
    r"(?P<base>.+?)[\s._-]*\(?(?P<word>"
    r"fp8[-_]static[-_]pertensor|fp8[-_]dynamic|fp8[-_]block|fp8[-_]kv|fp8"
    r"|(?:quantized\.)?w8a8(?:[-_](?:int8|fp8))?|(?:quantized\.)?w8a16|(?:quantized\.)?w4a16"
    r"|(?:gptq|awq)(?:[-_]int[48])?|int4|int8|nvfp4|mxfp4|fp4|bf16)\)?$",
    re.IGNORECASE,
)

_WORDS: dict[str, Precision] = {
    "fp8-static-pertensor": "fp8",
    "fp8-dynamic": "fp8",
    "fp8-block": "fp8_block",
    "fp8-kv": "fp8",
    "w8a8": "int8",
    "w8a8-int8": "int8",
    "w8a8-fp8": "fp8",
    "w8a16": "w8a16",
    "w4a16": "int4",
    "gptq": "int4",
    "gptq-int4": "int4",
    "gptq-int8": "w8a16",
    "awq": "int4",
    "awq-int4": "int4",
    "int4": "int4",
    "int8": "int8",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "mxfp4",
    "bf16": "bf16",
}


@dataclass(frozen=True, slots=True)
class PrecisionSuffix:
    """The base name and what the rest of the name says about number formats."""

    base: str
    word: str
    precision: Precision
    kv_cache_dtype: KvDtype = "auto"


def split_precision(name: str, publisher: str) -> PrecisionSuffix | None:
    """Split a checkpoint name into base model and format; None if it names no format.

    publisher : organisation in front of the name ("" if none): it decides what "FP8" means

    >>> split_precision("Qwen3-32B-AWQ", "Qwen").precision
    'int4'
    """
    match = _SUFFIX.fullmatch(name.strip()) if len(name) <= 200 else None
    if match is None:
        return None
    word = match["word"].lower().replace("_", "-").removeprefix("quantized.")
    if word == "fp8":
        block = publisher.lower() in BLOCK_FP8_PUBLISHERS
        return PrecisionSuffix(match["base"], word, "fp8_block" if block else "fp8")
    kv: KvDtype = "fp8" if word == "fp8-kv" else "auto"
    return PrecisionSuffix(match["base"], word, _WORDS[word], kv)
