"""What each quantisation method's section means: formats, and rules for single modules.

One reader per method. How each compares module names follows the engines' own loaders (vLLM's
`quantization` folder, Transformers' quantisers), because they decide what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.rules import MOST_RULES, Rule
from bestserve.catalog.hf.formats.weights import KEPT
from bestserve.errors import DataError
from bestserve.models.step.device import WeightFormat

Ruled = tuple[Rule, WeightFormat]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A quantisation section, read.

    default : format of every linear layer of the decoder that no rule names
    rules : (rule, format); the first that names a module decides
    only : where not empty, `default` is for modules that one of these names
    ends : the default holds for embedding and head too
    served : no engine here loads it; the reason
    notes : what was left out or assumed
    """

    default: WeightFormat = KEPT
    rules: tuple[Ruled, ...] = ()
    only: tuple[Rule, ...] = ()
    ends: bool = False
    unserved: str = ""
    notes: tuple[str, ...] = ()


def read_scheme(part: Config, method: str) -> Scheme:
    """Return the scheme of a section; DataError for a method or format that is not known."""
    reader = METHODS.get(method)
    if reader is None:
        known = ", ".join(sorted(METHODS))
        raise DataError(
            f"{part.where}: key {part.prefix}quant_method names {method[:40]!r}, which is not "
            f"known; known are {known}"
        )
    return reader(part)


def _rules(part: Config, keys: Iterable[str], how: Callable[[str], Iterable[Rule]]) -> list[Ruled]:
    texts = [text for key in keys for text in part.strings(key)]
    if len(texts) > MOST_RULES:
        raise part.error(
            next(k for k in keys if part.has(k)),
            f"lists {len(texts)} modules, more than models have",
        )
    return [(rule, KEPT) for text in dict.fromkeys(texts) for rule in how(text)]


def _loose(text: str) -> tuple[Rule, ...]:
    """Return the ways in which Transformers and vLLM between them read an entry of a list."""
    if text.startswith("re:"):
        return (Rule("match", text[3:]),)
    expression = not text.startswith("*") and any(
        c in text for c in ("\\", ".*", "^", "$", "(", "|", "+")
    )
    if expression:
        return (Rule("match", text), *_shell(text))
    return _shell(text) or (Rule("name", text),)


def _shell(text: str) -> tuple[Rule, ...]:
    return (Rule("glob", text),) if any(c in text for c in "*?[") else ()


def _part_of_text(text: str) -> tuple[Rule, ...]:
    return (Rule("part", text),)


def _wildcard(text: str) -> tuple[Rule, ...]:
    """ModelOpt: shell patterns; older files name a part of the text, some write "re:"."""
    if text.startswith("re:"):
        return (Rule("match", text[3:]),)
    return _shell(text) or (Rule("part", text),)


def _exact(text: str) -> tuple[Rule, ...]:
    """compressed-tensors: a full name, or "re:" and an expression that matches from the start."""
    return (Rule("match", text[3:]),) if text.startswith("re:") else (Rule("name", text),)


SKIPPED = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")


def _fp8(part: Config) -> Scheme:
    block = _block(part, "weight_block_size")
    default = weights.float8(block=block)
    return Scheme(default=default, rules=tuple(_rules(part, SKIPPED, _loose)))


def _block(part: Config, key: str) -> tuple[int, int] | None:
    value = part.values.get(key)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < 10**6 for v in value)
    ):
        raise part.error(key, "is not two whole numbers, e.g. [128, 128]")
    return value[0], value[1]


def _mxfp4(part: Config) -> Scheme:
    """gpt-oss: the method quantises the experts and nothing else."""
    rules = _rules(part, SKIPPED, _loose)
    return Scheme(
        rules=(*rules, (Rule("name", "experts"), weights.float4(32))),
    )


def _mxfp8(part: Config) -> Scheme:
    return Scheme(default=weights.float8_group(), rules=tuple(_rules(part, SKIPPED, _loose)))


GPTQ_BITS = (2, 3, 4, 8)


def _bits(part: Config, *keys: str, allowed: tuple[int, ...], default: int | None = None) -> int:
    bits = part.integer(*keys, default=default, maximum=64)
    if bits not in allowed:
        known = ", ".join(map(str, allowed))
        key = next(k for k in keys if part.has(k))
        raise part.error(key, f"is {bits}; known are {known}")
    return bits


def _group(part: Config, *keys: str, default: int = 128) -> int:
    return part.integer(*keys, default=default, minimum=-1, maximum=weights.MOST_GROUP)


def _gptq(part: Config) -> Scheme:
    bits, group = (
        _bits(part, "bits", "w_bit", allowed=GPTQ_BITS, default=4),
        _group(part, "group_size"),
    )
    default = weights.integer(bits, group, zero_points=True)
    rules = list(_rules(part, SKIPPED, _loose))
    for name, override in part.part("dynamic").values.items():
        # GPTQModel: "-:" keeps what matches, "+:" (or nothing) gives it other settings.
        sign, expression = (name[:2], name[2:]) if name[:2] in ("-:", "+:") else ("+:", name)
        if sign == "-:":
            rules.append((Rule("match", expression), KEPT))
            continue
        own = _overridden(part, "dynamic", name, override)
        form = weights.integer(
            _bits(own, "bits", allowed=GPTQ_BITS, default=bits),
            _group(own, "group_size", default=group),
            zero_points=True,
        )
        rules.append((Rule("match", expression), form))
    if part.flag("lm_head", False):
        rules.append((Rule("name", "lm_head"), default))
    return Scheme(
        default=default,
        rules=tuple(rules),
        only=tuple(Rule("name", n) for n in _flat(part, "modules_in_block_to_quantize")),
    )


def _overridden(part: Config, key: str, name: str, override: object) -> Config:
    if not isinstance(override, Mapping):
        raise part.error(key, f"gives {name[:40]!r} no object of settings")
    return Config(override, part.where, f"{part.prefix}{key}.{name[:60]}.")


def _flat(part: Config, key: str) -> tuple[str, ...]:
    value = part.values.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(v.strip() for v in value.split(",") if v.strip())
    if isinstance(value, list):
        lists = [v if isinstance(v, list) else [v] for v in value]
        if all(isinstance(v, str) for each in lists for v in each):
            return tuple(dict.fromkeys(v for each in lists for v in each))
    raise part.error(key, "is no list of module names")


def _awq(part: Config) -> Scheme:
    bits = _bits(part, "bits", "w_bit", allowed=(2, 3, 4, 8), default=4)
    group = _group(part, "group_size", "q_group_size")
    zero = part.flag("zero_point", True)
    return Scheme(
        default=weights.integer(bits, group, zero_points=zero),
        rules=tuple(_rules(part, SKIPPED, _part_of_text)),
    )


def _auto_round(part: Config) -> Scheme:
    data = part.text("data_type", "int")
    bits = part.integer("bits", maximum=16)
    group = _group(part, "group_size")

    def form(own: Config, name: str = "") -> WeightFormat:
        width = own.integer("bits", default=bits, maximum=32)
        size = _group(own, "group_size", default=group)
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
        rules.append((Rule("name", name), form(_overridden(part, "extra_config", name, override))))
    for name, override in extra.items():
        if (name, override) not in exact:
            own = form(_overridden(part, "extra_config", name, override))
            rules.append((Rule("search", name), own))
    rules += _rules(part, SKIPPED, _loose)
    blocks = _flat(part, "block_name_to_quantize") or _flat(part, "to_quant_block_names")
    return Scheme(
        default=form(part), rules=tuple(rules), only=tuple(Rule("part", b) for b in blocks)
    )


def _bitsandbytes(part: Config) -> Scheme:
    rules = tuple(_rules(part, ("llm_int8_skip_modules", *SKIPPED), _loose))
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


def _hqq(part: Config) -> Scheme:
    own = part.part("quant_config").part("weight_quant_params")
    bits = _bits(own, "nbits", allowed=(1, 2, 3, 4, 8))
    group = _group(own, "group_size", default=64)
    form = weights.integer(bits, group)
    zero = 2.0 / group if group > 0 else 0.0  # its zero points are 16 bits
    return Scheme(
        default=replace(form, bytes=form.bytes + zero),
        rules=tuple(_rules(part, ("skip_modules", *SKIPPED), _loose)),
    )


def _compressed_tensors(part: Config) -> Scheme:
    return _config_groups(part, _exact)


def _config_groups(part: Config, how: Callable[[str], Iterable[Rule]]) -> Scheme:
    groups = part.part("config_groups")
    if not groups.values:
        raise part.error("config_groups", "is missing; is the file complete?")
    rules = _rules(part, SKIPPED, how)
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
    size = _group(own, "group_size") if grouped else -1
    inputs = group.part("input_activations")
    active = inputs.integer("num_bits", default=16, maximum=64)
    if kind == "float" and bits == 8:
        if size > 0:
            return weights.float8_group(size, weight_only=active >= 16)
        block = _block(own, "block_structure") if strategy == "block" else None
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


def _modelopt(part: Config) -> Scheme:
    if part.part("quantization").values:
        inner = part.part("quantization")
        part = Config(
            {**part.values, **inner.values, "quantization": None}, part.where, inner.prefix
        )
    algorithm = part.text("quant_algo", "")
    size = part.integer("group_size", default=0, minimum=-1, maximum=weights.MOST_GROUP)
    group = size if size > 0 else None
    rules = _rules(part, SKIPPED, _wildcard)
    layers = part.part("quantized_layers").values
    if len(layers) > MOST_RULES:
        raise part.error("quantized_layers", f"lists {len(layers)} modules, more than models have")
    for name, stated in layers.items():
        own = _overridden(part, "quantized_layers", name, stated)
        form = _algorithm(
            own,
            own.text("quant_algo"),
            own.integer("group_size", default=group or 0, minimum=0) or None,
        )
        rules += [(rule, form) for rule in (_shell(name) or (Rule("name", name),))]
    if algorithm.upper() == "MIXED_PRECISION":
        if layers:
            return Scheme(rules=tuple(rules))
        return _config_groups(part, _loose)
    if algorithm:
        return Scheme(default=_algorithm(part, algorithm, group), rules=tuple(rules))
    if part.part("config_groups").values:
        return _config_groups(part, _loose)
    raise part.error("quant_algo", "is missing; is the file complete?")


def _quark(part: Config) -> Scheme:
    rules = _rules(part, ("exclude", *SKIPPED), _loose)
    for name, stated in part.part("layer_quant_config").values.items():
        own = _overridden(part, "layer_quant_config", name, stated)
        if own.has("weight"):
            rules += [
                (rule, _quark_format(own)) for rule in (_shell(name) or (Rule("name", name),))
            ]
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
    size = _group(weight, "group_size", default=32) if grouped else -1
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


def _mlx(part: Config) -> Scheme:
    mode = part.text("mode", "affine")

    def form(own: Config) -> WeightFormat:
        bits = own.integer("bits", default=part.integer("bits", default=4), maximum=16)
        size = _group(own, "group_size", default=_group(part, "group_size", default=64))
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
            rules.append((Rule("name", name), form(_overridden(part, "", name, stated))))
        elif stated is False:
            rules.append((Rule("name", name), KEPT))
    return Scheme(default=form(part), rules=tuple(rules), ends=True, unserved=MLX_UNSERVED)


METHODS: dict[str, Callable[[Config], Scheme]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "finegrained_fp8": _fp8,
    "deepseek_v4_fp8": _fp8,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "mxfp8": _mxfp8,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "gptqmodel": _gptq,
    "awq": _awq,
    "awq_marlin": _awq,
    "auto-round": _auto_round,
    "auto_round": _auto_round,
    "intel/auto-round": _auto_round,
    "inc": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "hqq": _hqq,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mxfp8": _modelopt,
    "modelopt_mixed": _modelopt,
    "quark": _quark,
    "mlx": _mlx,
}
