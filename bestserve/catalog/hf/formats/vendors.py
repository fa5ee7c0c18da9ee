"""Formats as makers of GPUs state them: NVIDIA's ModelOpt, AMD's Quark, Apple's MLX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.methods import config_groups
from bestserve.catalog.hf.formats.rules import MOST_RULES, Rule
from bestserve.catalog.hf.formats.scheme import (
    SKIPPED,
    Ruled,
    Scheme,
    group_of,
    kept,
    loose,
    overridden,
    shell,
)
from bestserve.catalog.hf.formats.weights import KEPT
from bestserve.models.step.device import WeightFormat


def _wildcard(text: str) -> tuple[Rule, ...]:
    """ModelOpt: shell patterns; older files name a part of the text, some write "re:"."""
    if text.startswith("re:"):
        return (Rule("match", text[3:]),)
    return shell(text) or (Rule("part", text),)


def _algorithm(part: Config, name: str, group_size: int | None = None) -> WeightFormat:
    """Return the format of a ModelOpt `quant_algo`."""
    algorithm = name.upper()
    sixteen, thirty_two = group_size or 16, group_size or 32
    known = {
        "FP8": weights.float8(),
        "FP8_PER_CHANNEL_PER_TOKEN": weights.float8(),
        "FP8_PB_REAL": weights.float8(block=(128, 128)),
        "FP8_PB_WO": weights.float8(block=(128, 128), weight_only=True),
        "FP8_PB": weights.float8(block=(128, 128)),
        "FP8_BLOCK_SCALES": weights.float8(block=(128, 128)),
        "W8A8_SQ_PER_CHANNEL": weights.integer8(),
        "INT8_SQ": weights.integer8(),
        "INT8": weights.integer8(),
        "W8A16": weights.integer(8),
        "INT8_WO": weights.integer(8),
        "NVFP4": weights.float4(sixteen),
        "NVFP4_AWQ": weights.float4(sixteen),
        "NVFP4_SVDQUANT": weights.float4(sixteen),
        "W4A8_NVFP4_FP8": weights.float4(sixteen),
        "W4A16_NVFP4": weights.float4(sixteen, weight_only=True),
        "NVFP4_WO": weights.float4(sixteen, weight_only=True),
        "MXFP4": weights.float4(thirty_two),
        "W4A8_MXFP4_FP8": weights.float4(thirty_two),
        "MXFP8": weights.float8_group(thirty_two),
        "W4A16": weights.integer(4, group_size or 128),
        "W4A16_AWQ": weights.integer(4, group_size or 128),
        "INT4_AWQ": weights.integer(4, group_size or 128),
        "W4A8_AWQ": weights.integer(4, group_size or 128),
        "NONE": KEPT,
    }
    found = known.get(algorithm)
    if found is None:
        raise part.error(
            "quant_algo", f"is {name[:40]!r}; known are {', '.join(known)}, MIXED_PRECISION"
        )
    return found


def modelopt(part: Config) -> Scheme:
    """NVIDIA ModelOpt: one `quant_algo`, one per layer, or compressed-tensors groups."""
    if part.part("quantization").values:
        inner = part.part("quantization")
        part = Config(
            {**part.values, **inner.values, "quantization": None}, part.where, inner.prefix
        )
    algorithm = part.text("quant_algo", "")
    size = part.integer("group_size", default=0, minimum=-1, maximum=weights.MOST_GROUP)
    group = size if size > 0 else None
    rules = kept(part, SKIPPED, _wildcard)
    layers = part.part("quantized_layers").values
    if len(layers) > MOST_RULES:
        raise part.error("quantized_layers", f"lists {len(layers)} modules, more than models have")
    for name, stated in layers.items():
        own = overridden(part, "quantized_layers", name, stated)
        form = _algorithm(
            own,
            own.text("quant_algo"),
            own.integer("group_size", default=group or 0, minimum=0) or None,
        )
        rules += [(rule, form) for rule in (shell(name) or (Rule("name", name),))]
    if algorithm.upper() == "MIXED_PRECISION":
        if layers:
            return Scheme(rules=tuple(rules))
        return config_groups(part, loose)
    if algorithm:
        return Scheme(default=_algorithm(part, algorithm, group), rules=tuple(rules))
    if part.part("config_groups").values:
        return config_groups(part, loose)
    raise part.error("quant_algo", "is missing; is the file complete?")


def quark(part: Config) -> Scheme:
    """AMD Quark: a global format and others by layer."""
    rules = kept(part, ("exclude", *SKIPPED), loose)
    for name, stated in part.part("layer_quant_config").values.items():
        own = overridden(part, "layer_quant_config", name, stated)
        if own.has("weight"):
            rules += [(rule, _quark_format(own)) for rule in (shell(name) or (Rule("name", name),))]
    notes = []
    if part.part("layer_type_quant_config").values:
        notes.append(f"{part.prefix}layer_type_quant_config: not applied")
    if part.has("algo_config"):
        pass  # how the weights were found, not how they are stored
    default = part.part("global_quant_config")
    return Scheme(
        default=_quark_format(default) if default.has("weight") else KEPT,
        rules=tuple(rules),
        notes=tuple(notes),
    )


def _quark_format(own: Config) -> WeightFormat:
    value = own.values["weight"]
    stages = value if isinstance(value, list) else [value]
    if not stages or not all(isinstance(stage, Mapping) for stage in stages):
        raise own.error("weight", "is no object of settings")
    # Weights quantised in two stages are stored in the narrower format.
    each = [_quark_stage(Config(s, own.where, f"{own.prefix}weight."), own) for s in stages]
    return min(each, key=lambda form: form.bytes)


def _quark_stage(weight: Config, own: Config) -> WeightFormat:
    kind = weight.text("dtype")
    grouped = weight.text("qscheme", "per_tensor") == "per_group"
    size = group_of(weight, "group_size", default=32) if grouped else -1
    inputs = own.values.get("input_tensors")
    only = inputs is None
    if kind in ("fp8_e4m3", "fp8_e5m2", "fp8"):
        return (
            weights.float8_group(size, weight_only=only)
            if size > 0
            else weights.float8(weight_only=only)
        )
    if kind in ("fp4", "mxfp4"):
        return weights.float4(size if size > 0 else 32, weight_only=only)
    if kind.startswith(("fp6", "mxfp6")):
        return weights.float6(size if size > 0 else 32)
    if kind in ("int8", "uint8"):
        return weights.integer(8, size) if only else weights.integer8(size)
    if kind in ("int2", "int3", "int4", "uint4"):
        return weights.integer(int(kind[-1]), size, zero_points=kind.startswith("u"))
    if kind in ("bfloat16", "float16", "float32"):
        return KEPT
    raise weight.error("dtype", f"is {kind[:20]!r}, which is not known")


MLX_UNSERVED = "MLX's own format, which no engine here loads (it is for Apple's machines)"


def mlx(part: Config) -> Scheme:
    """MLX: groups with a scale and a bias, embedding and head included; no server loads it."""
    mode = part.text("mode", "affine")

    def form(own: Config) -> WeightFormat:
        bits = own.integer("bits", default=part.integer("bits", default=4), maximum=16)
        size = group_of(own, "group_size", default=group_of(part, "group_size", default=64))
        if mode.startswith("mxfp8"):
            return weights.float8_group(size if size > 0 else 32)
        if mode != "affine" and bits == 4:
            return weights.float4(size if size > 0 else 32)
        # A scale and a bias, 16 bits each, per group.
        plain = weights.integer(bits, size)
        return replace(plain, bytes=plain.bytes + (2.0 / size if size > 0 else 0.0))

    rules: list[Ruled] = []
    for name, stated in part.values.items():
        if isinstance(stated, Mapping) and name != "quantization_config":
            rules.append((Rule("name", name), form(overridden(part, "", name, stated))))
        elif stated is False:
            rules.append((Rule("name", name), KEPT))
    return Scheme(default=form(part), rules=tuple(rules), ends=True, unserved=MLX_UNSERVED)
