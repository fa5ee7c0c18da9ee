"""Number formats of a checkpoint from its `quantization_config`."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from bestserve.catalog.hf.config import Config
from bestserve.errors import DataError
from bestserve.models.step.device import Precision


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What the checkpoint stores in which format.

    attention, weights, experts : attention projections, other dense linear layers, routed experts
    kv_fp8 : the checkpoint brings scales for an 8-bit KV cache
    """

    method: str = ""
    attention: Precision = "bf16"
    weights: Precision = "bf16"
    experts: Precision = "bf16"
    kv_fp8: bool = False


_LONGEST = 200
_MOST_PATTERNS = 20_000
_PREFIXES = ("model", "model.language_model", "language_model.model")
_ATTENTION = (
    *("self_attn", "self_attn.q_proj", "self_attn.q_a_proj"),
    *("linear_attn", "linear_attn.in_proj_qkv", "linear_attn.in_proj_qkvz"),
)
_DENSE = (
    *("mlp", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    *("mlp.shared_experts", "mlp.shared_expert", "mlp.shared_expert.up_proj"),
)
_EXPERTS = ("mlp.experts", "mlp.experts.0", "mlp.experts.0.up_proj", "block_sparse_moe.experts")
# Gemma 4 runs its experts beside the dense part, not inside it.
_OWN_EXPERTS = {"gemma4_text": ("experts", "moe.experts")}


def read_quantisation(config: Config) -> Quantisation:
    """Return the formats that `quantization_config` states; bf16 throughout if there is none."""
    if not config.has("quantization_config"):
        return Quantisation()
    part = config.part("quantization_config")
    method = part.text("quant_method", part.text("quant_algo", "")).lower()
    if method == "mxfp4":  # the method quantises the experts and nothing else
        return Quantisation(method=method, experts="mxfp4")
    formats = _formats(part, method)
    kept = tuple(
        pattern
        for key in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers")
        for pattern in part.strings(key)
    )
    listed = len(kept) + sum(len(targets) for targets, _ in formats)
    if listed > _MOST_PATTERNS:
        raise part.error("ignore", f"and its targets list {listed} modules, more than models have")
    layers = config.integer("num_hidden_layers", default=8)
    own = _OWN_EXPERTS.get(config.text("model_type", ""), _EXPERTS)
    return Quantisation(
        method=method,
        attention=_format_of(_ATTENTION, layers, kept, formats),
        weights=_format_of(_DENSE, layers, kept, formats),
        experts=_format_of(own, layers, kept, formats),
        kv_fp8=_kv_fp8(part),
    )


Formats = tuple[tuple[tuple[str, ...], Precision], ...]
"""(targets, format) per group; without targets: all linear layers."""


def _formats(part: Config, method: str) -> Formats:
    if method in ("fp8", "fbgemm_fp8"):
        return (((), "fp8_block" if part.has("weight_block_size") else "fp8"),)
    if method in ("awq", "gptq", "auto-round", "gptq_marlin", "awq_marlin"):
        bits = part.integer("bits", "w_bit", default=4)
        if bits not in (4, 8):
            raise part.error("bits", f"is {bits}; known are 4 and 8")
        return (((), "int4" if bits == 4 else "w8a16"),)
    algorithm = part.text("quant_algo", "").upper()
    if algorithm in _BY_ALGORITHM:
        return (((), _BY_ALGORITHM[algorithm]),)
    groups = part.part("config_groups")
    if groups.values:
        return tuple(_from_group(groups.part(str(name))) for name in groups.values)
    raise DataError(
        f"{part.where}: key {part.prefix}quant_method names {method[:40]!r}, which is not known; "
        "known are fp8, fbgemm_fp8, mxfp4, awq, gptq, compressed-tensors, modelopt"
    )


_BY_ALGORITHM: dict[str, Precision] = {
    "NVFP4": "nvfp4",
    "FP8": "fp8",
    "W4A16": "int4",
    "W4A16_AWQ": "int4",
    "MXFP4": "mxfp4",
}


def _from_group(group: Config) -> tuple[tuple[str, ...], Precision]:
    targets = group.strings("targets")
    everything = not targets or "Linear" in targets
    return (() if everything else targets, _group_precision(group))


def _group_precision(group: Config) -> Precision:
    weights = group.part("weights")
    bits = weights.integer("num_bits", maximum=64)
    kind = weights.text("type", "int")
    if kind == "float" and bits == 8:
        return "fp8_block" if weights.text("strategy", "") == "block" else "fp8"
    if kind == "float" and bits == 4:
        return "mxfp4" if weights.integer("group_size", default=16) == 32 else "nvfp4"
    if kind == "int" and bits == 8:
        return "int8" if group.part("input_activations").has("num_bits") else "w8a16"
    if kind == "int" and bits == 4:
        return "int4"
    raise weights.error("num_bits", f"is {bits} of type {kind[:20]!r}, which is not known")


def _kv_fp8(part: Config) -> bool:
    for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
        scheme = part.values.get(key)
        if isinstance(scheme, str) and scheme.upper() == "FP8":
            return True
        if isinstance(scheme, dict) and scheme.get("num_bits") == 8:
            return True
    return False


def _format_of(
    modules: tuple[str, ...], layers: int, kept: tuple[str, ...], formats: Formats
) -> Precision:
    """Return the format of `modules` in four middle layers, where first-layer exceptions do not
    apply and every kind of attention of a hybrid model occurs."""
    middle = range(layers // 2, layers // 2 + 4)
    names = frozenset(f"{p}.layers.{i}.{m}" for p in _PREFIXES for i in middle for m in modules)
    if _any_matches(kept, names):
        return "bf16"
    for targets, precision in formats:
        if not targets or _any_matches(targets, names):
            return precision
    return "bf16"


def _any_matches(patterns: tuple[str, ...], names: frozenset[str]) -> bool:
    return any(pattern in names or _matches(pattern, names) for pattern in patterns)


def _matches(pattern: str, names: frozenset[str]) -> bool:
    """Whether a shell pattern or "re:" expression covers one of `names`."""
    if len(pattern) > _LONGEST:
        return False
    if pattern.startswith("re:"):
        shells = _shell_patterns(pattern[3:])
    else:
        shells = (pattern,) if any(c in pattern for c in "*?[") else ()
    return any(fnmatch.fnmatchcase(name, shell) for shell in shells for name in names)


def _shell_patterns(expression: str) -> tuple[str, ...]:
    """Translate the regular expressions that such lists use into shell patterns.

    A stranger's expression is never run: it could take exponential time. What is not literal text,
    ".*", "\\\\d+" or one group of alternatives is taken to match nothing.
    """
    body = expression.removeprefix("^")
    open_end = not body.endswith("$")
    dots_apart = body.removesuffix("$").replace("\\.", "\0")  # literal dots, until .* is done
    body = dots_apart.replace("\\d+", "*").replace(".*", "*").replace("\0", ".")
    before, bracket, rest = body.partition("(")
    choices, closing, after = rest.partition(")")
    if bool(bracket) != bool(closing):
        return ()
    expanded = [before + c + after for c in choices.split("|")] if bracket else [body]
    tail = "*" if open_end else ""
    return tuple(e + tail for e in expanded if not set(e) & set("()[]{}|+?\\^$"))
