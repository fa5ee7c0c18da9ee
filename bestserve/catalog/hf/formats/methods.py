"""What each quantisation method's section means: formats, and rules for single modules.

One reader per method. How each compares module names follows the engines' own loaders (vLLM's
`quantization` folder, Transformers' quantisers), because they decide what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.rules import MOST_RULES, Rule
from bestserve.catalog.hf.formats.scheme import (
    SKIPPED,
    Ruled,
    Scheme,
    bits_of,
    block_of,
    flat,
    group_of,
    kept,
    loose,
    overridden,
)
from bestserve.catalog.hf.formats.weights import KEPT
from bestserve.models.step.device import WeightFormat

GPTQ_BITS = (2, 3, 4, 8)


def _part_of_text(text: str) -> tuple[Rule, ...]:
    return (Rule("part", text),)


def _exact(text: str) -> tuple[Rule, ...]:
    """compressed-tensors: a full name, or "re:" and an expression that matches from the start."""
    return (Rule("match", text[3:]),) if text.startswith("re:") else (Rule("name", text),)


def fp8(part: Config) -> Scheme:
    """FP8 weights, per tensor or in blocks, but for the modules listed."""
    block = block_of(part, "weight_block_size")
    default = weights.float8(block=block)
    return Scheme(default=default, rules=tuple(kept(part, SKIPPED, loose)))


def mxfp4(part: Config) -> Scheme:
    """gpt-oss: the method quantises the experts and nothing else."""
    rules = kept(part, SKIPPED, loose)
    return Scheme(
        rules=(*rules, (Rule("name", "experts"), weights.float4(32))),
    )


def mxfp8(part: Config) -> Scheme:
    """8-bit floats with an 8-bit scale per group."""
    return Scheme(default=weights.float8_group(), rules=tuple(kept(part, SKIPPED, loose)))


def gptq(part: Config) -> Scheme:
    """GPTQ and GPTQModel, with its `dynamic` overrides."""
    bits, group = (
        bits_of(part, "bits", "w_bit", allowed=GPTQ_BITS, default=4),
        group_of(part, "group_size"),
    )
    default = weights.integer(bits, group, zero_points=True)
    rules = list(kept(part, SKIPPED, loose))
    for name, override in part.part("dynamic").values.items():
        # GPTQModel: "-:" keeps what matches, "+:" (or nothing) gives it other settings.
        sign, expression = (name[:2], name[2:]) if name[:2] in ("-:", "+:") else ("+:", name)
        if sign == "-:":
            rules.append((Rule("match", expression), KEPT))
            continue
        own = overridden(part, "dynamic", name, override)
        form = weights.integer(
            bits_of(own, "bits", allowed=GPTQ_BITS, default=bits),
            group_of(own, "group_size", default=group),
            zero_points=True,
        )
        rules.append((Rule("match", expression), form))
    if part.flag("lm_head", False):
        rules.append((Rule("name", "lm_head"), default))
    return Scheme(
        default=default,
        rules=tuple(rules),
        only=tuple(Rule("name", n) for n in flat(part, "modules_in_block_to_quantize")),
    )


def awq(part: Config) -> Scheme:
    """AWQ; its list names parts of module names."""
    bits = bits_of(part, "bits", "w_bit", allowed=(2, 3, 4, 8), default=4)
    group = group_of(part, "group_size", "q_group_size")
    zero = part.flag("zero_point", True)
    return Scheme(
        default=weights.integer(bits, group, zero_points=zero),
        rules=tuple(kept(part, SKIPPED, _part_of_text)),
    )


def auto_round(part: Config) -> Scheme:
    """AutoRound, with `extra_config` by module and blocks that alone are quantised."""
    data = part.text("data_type", "int")
    bits = part.integer("bits", maximum=16)
    group = group_of(part, "group_size")

    def form(own: Config, name: str = "") -> WeightFormat:
        width = own.integer("bits", default=bits, maximum=32)
        size = group_of(own, "group_size", default=group)
        kind = own.text("data_type", data)
        if width >= 16:
            return KEPT
        if "fp" in kind or kind == "float":
            active = own.integer("act_bits", default=part.integer("act_bits", default=16))
            if width == 4:
                size = size if size > 0 else (16 if "nv" in kind else 32)
                return weights.float4(size, weight_only=active >= 16)
            if width == 8 and "mx" in kind:
                return weights.float8_group(weight_only=active >= 16)
            if width == 8:
                return weights.float8(weight_only=active >= 16)
        elif 2 <= width <= 8:
            return weights.integer(
                width, size, zero_points=not own.flag("sym", part.flag("sym", True))
            )
        raise own.error("bits", f"is {width} of type {kind[:20]!r}, which is not known")

    rules: list[Ruled] = []
    extra = part.part("extra_config").values
    if len(extra) > MOST_RULES:
        raise part.error("extra_config", f"lists {len(extra)} modules, more than models have")
    exact = [(n, o) for n, o in extra.items() if not set(n) & set("*+?^$()[]{}|\\")]
    for name, override in exact:
        rules.append((Rule("name", name), form(overridden(part, "extra_config", name, override))))
    for name, override in extra.items():
        if (name, override) not in exact:
            own = form(overridden(part, "extra_config", name, override))
            rules.append((Rule("search", name), own))
    rules += kept(part, SKIPPED, loose)
    blocks = flat(part, "block_name_to_quantize") or flat(part, "to_quant_block_names")
    return Scheme(
        default=form(part), rules=tuple(rules), only=tuple(Rule("part", b) for b in blocks)
    )


def bitsandbytes(part: Config) -> Scheme:
    """bitsandbytes: 8-bit integers, or 4 bits with a scale for 64 weights."""
    rules = tuple(kept(part, ("llm_int8_skip_modules", *SKIPPED), loose))
    four = part.flag("load_in_4bit", part.flag("_load_in_4bit", False))
    eight = part.flag("load_in_8bit", part.flag("_load_in_8bit", False))
    if four == eight:
        raise part.error("load_in_4bit", "and load_in_8bit must differ: 4 or 8 bits")
    if eight:
        return Scheme(default=weights.integer(8), rules=rules)
    kind = part.text("bnb_4bit_quant_type", "fp4")
    if kind not in ("nf4", "fp4"):
        raise part.error("bnb_4bit_quant_type", f"is {kind[:20]!r}; known are nf4 and fp4")
    # One 32-bit scale for 64 weights; quantised twice: 8 bits, and 32 bits for 256 of those.
    double = part.flag("bnb_4bit_use_double_quant", False)
    scales = (1.0 + 4.0 / 256) / 64 if double else 4.0 / 64
    return Scheme(default=WeightFormat("int4", 0.5 + scales), rules=rules)


def hqq(part: Config) -> Scheme:
    """HQQ: integers with 16-bit scales and zero points."""
    own = part.part("quant_config").part("weight_quant_params")
    bits = bits_of(own, "nbits", allowed=(1, 2, 3, 4, 8))
    group = group_of(own, "group_size", default=64)
    form = weights.integer(bits, group)
    zero = 2.0 / group if group > 0 else 0.0  # its zero points are 16 bits
    return Scheme(
        default=replace(form, bytes=form.bytes + zero),
        rules=tuple(kept(part, ("skip_modules", *SKIPPED), loose)),
    )


def compressed_tensors(part: Config) -> Scheme:
    """compressed-tensors: groups of targets, each with its own format."""
    return config_groups(part, _exact)


def config_groups(part: Config, how: Callable[[str], Iterable[Rule]]) -> Scheme:
    """Return what the groups of a compressed-tensors section state."""
    groups = part.part("config_groups")
    if not groups.values:
        raise part.error("config_groups", "is missing; is the file complete?")
    rules = kept(part, SKIPPED, how)
    default, notes = KEPT, []
    for name in groups.values:
        group = groups.part(str(name))
        targets = group.strings("targets") or ("Linear",)
        if len(targets) > MOST_RULES:
            raise group.error("targets", f"lists {len(targets)} modules, more than models have")
        form = _group_format(group, part.text("format", ""))
        for target in dict.fromkeys(targets):
            if target in ("Linear", "FusedMoE"):
                default = form
            elif target.isidentifier() and target[0].isupper():
                notes.append(f"{group.prefix}targets names the class {target[:40]!r}: not applied")
            else:
                rules += [(rule, form) for rule in how(target)]
    if part.part("sparsity_config").values.get("format", "dense") != "dense":
        notes.append(f"{part.prefix}sparsity_config: weights are counted as if they were dense")
    return Scheme(default=default, rules=tuple(rules), notes=tuple(notes))


def _group_format(group: Config, file_format: str) -> WeightFormat:
    own = group.part("weights")
    if not own.values:
        return KEPT  # activations or outputs only
    bits = own.integer("num_bits", maximum=64)
    kind = own.text("type", "int")
    strategy = own.text("strategy", "")
    grouped = strategy in ("group", "tensor_group", "") and own.has("group_size")
    size = group_of(own, "group_size") if grouped else -1
    inputs = group.part("input_activations")
    active = inputs.integer("num_bits", default=16, maximum=64)
    if kind == "float" and bits == 8:
        if size > 0:
            return weights.float8_group(size, weight_only=active >= 16)
        block = block_of(own, "block_structure") if strategy == "block" else None
        if strategy == "block" and block is None:
            block = (128, 128)
        return weights.float8(block=block, weight_only=active >= 16)
    if kind == "float" and bits == 4:
        label = group.text("format", file_format)
        default = 32 if "mx" in label else 16
        return weights.float4(size if size > 0 else default, weight_only=active >= 16)
    if kind == "int" and bits == 8 and active <= 8:
        return weights.integer8(size)
    if kind == "int" and 2 <= bits <= 8:
        return weights.integer(bits, size, zero_points=not own.flag("symmetric", True))
    raise own.error("num_bits", f"is {bits} of type {kind[:20]!r}, which is not known")
