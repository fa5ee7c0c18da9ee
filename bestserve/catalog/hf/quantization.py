"""Number formats of a checkpoint from its `quantization_config`."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from bestserve.catalog.hf.config import Config
from bestserve.errors import DataError
from bestserve.models.device import Precision


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
_MOST_EXCEPTIONS = 20_000

# One module of each kind in the middle of a model, where first-layer exceptions do not apply.
_ATTENTION = ("self_attn", "self_attn.q_proj", "self_attn.o_proj", "self_attn.q_a_proj")
_DENSE = ("mlp", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp.shared_experts")
_EXPERTS = ("mlp.experts", "mlp.experts.0", "mlp.experts.0.gate_proj", "block_sparse_moe.experts")


def read_quantisation(config: Config) -> Quantisation:
    """Return the formats that `quantization_config` states; bf16 throughout if there is none."""
    if not config.has("quantization_config"):
        return Quantisation()
    part = config.part("quantization_config")
    method = part.text("quant_method", part.text("quant_algo", "")).lower()
    precision = _precision(part, method)
    if method == "mxfp4":  # the method quantises the experts and nothing else
        return Quantisation(method=method, experts=precision)
    kept = (
        *part.strings("modules_to_not_convert"),
        *part.strings("ignore"),
        *part.strings("exclude_modules"),
        *part.strings("ignored_layers"),
    )
    if len(kept) > _MOST_EXCEPTIONS:
        raise part.error("ignore", f"lists {len(kept)} modules, more than any model has")
    layers = config.integer("num_hidden_layers", default=3)
    return Quantisation(
        method=method,
        attention="bf16" if _keeps(kept, _ATTENTION, layers) else precision,
        weights="bf16" if _keeps(kept, _DENSE, layers) else precision,
        experts="bf16" if _keeps(kept, _EXPERTS, layers) else precision,
        kv_fp8=_kv_fp8(part),
    )


def _precision(part: Config, method: str) -> Precision:
    if method in ("fp8", "fbgemm_fp8"):
        return "fp8_block" if part.has("weight_block_size") else "fp8"
    if method == "mxfp4":
        return "mxfp4"
    if method in ("awq", "gptq", "auto-round", "gptq_marlin", "awq_marlin"):
        bits = part.integer("bits", "w_bit", default=4)
        found: Precision | None = {4: "int4", 8: "w8a16"}.get(bits)  # type: ignore[assignment]
        if found is not None:
            return found
        raise part.error("bits", f"is {bits}; known are 4 and 8")
    algorithm = part.text("quant_algo", "").upper()
    if algorithm in ("NVFP4", "FP8", "W4A16", "W4A16_AWQ", "MXFP4"):
        return _BY_ALGORITHM[algorithm]
    groups = part.part("config_groups")
    for name in groups.values:
        return _from_group(groups.part(name))
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


def _from_group(group: Config) -> Precision:
    weights = group.part("weights")
    bits = weights.integer("num_bits", maximum=64)
    kind = weights.text("type", "int")
    activations = group.part("input_activations")
    quantised = activations.has("num_bits")
    if kind == "float" and bits == 8:
        return "fp8_block" if weights.text("strategy", "") == "block" else "fp8"
    if kind == "float" and bits == 4:
        return "mxfp4" if weights.integer("group_size", default=16) == 32 else "nvfp4"
    if kind == "int" and bits == 8:
        return "int8" if quantised else "w8a16"
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


def _keeps(kept: tuple[str, ...], modules: tuple[str, ...], layers: int) -> bool:
    """Whether the exceptions name one of `modules` in the middle layer."""
    for prefix in ("model", "model.language_model", "language_model.model"):
        names = [f"{prefix}.layers.{layers // 2}.{module}" for module in modules]
        if any(_matches(pattern, name) for pattern in kept for name in names):
            return True
    return False


def _matches(pattern: str, name: str) -> bool:
    """Whether an exception covers a module: by name, shell pattern or "re:" expression."""
    if pattern.startswith("re:"):
        return any(fnmatch.fnmatchcase(name, shell) for shell in _shell_patterns(pattern[3:]))
    if any(c in pattern for c in "*?["):
        return len(pattern) <= _LONGEST and fnmatch.fnmatchcase(name, pattern)
    return name == pattern


def _shell_patterns(expression: str) -> tuple[str, ...]:
    """Translate the regular expressions that such lists use into shell patterns.

    A stranger's expression is never run: it could take exponential time. What is not literal text,
    ".*", "\\d+" or one group of alternatives is taken to match nothing.
    """
    if len(expression) > _LONGEST:
        return ()
    body = expression.removeprefix("^")
    open_end = not body.endswith("$")
    body = body.removesuffix("$").replace("\\d+", "*").replace(".*", "*").replace("\\.", ".")
    before, bracket, rest = body.partition("(")
    choices, closing, after = rest.partition(")")
    if bool(bracket) != bool(closing):
        return ()
    expanded = [before + c + after for c in choices.split("|")] if bracket else [body]
    tail = "*" if open_end else ""
    return tuple(e + tail for e in expanded if not set(e) & set("()[]{}|+?\\^$"))
