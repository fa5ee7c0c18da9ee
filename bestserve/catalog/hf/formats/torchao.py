"""torchao: classes of its Python configuration, written out as `_type` and `_data`.

As `torchao.core.config.config_to_dict` writes them, and the older spelling with a name
("int4_weight_only") and `quant_type_kwargs`. Its 4-bit weights keep a scale and a zero point of
16 bits each per group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.rules import MOST_RULES, Rule
from bestserve.catalog.hf.formats.scheme import SKIPPED, Ruled, Scheme, group_of, kept, loose
from bestserve.catalog.hf.formats.weights import KEPT
from bestserve.models.step.device import WeightFormat

_BY_MODULE = ("FqnToConfig", "ModuleFqnToConfig")
_OLD = re.compile(r"(?P<base>[a-z0-9_]*?)(?:-(?P<group>\d{1,6}))?")


def torchao(part: Config) -> Scheme:
    """Read a section of torchao. Raises DataError for a type that is not known."""
    rules: list[Ruled] = list(kept(part, SKIPPED, loose))
    ends = part.flag("include_input_output_embeddings", False)
    stated = part.values.get("quant_type")
    if isinstance(stated, str):
        own = part.part("quant_type_kwargs")
        return Scheme(default=_old(part, stated, own), rules=tuple(rules), ends=ends)
    chosen = part.part("quant_type")
    chosen = chosen.part("default") if chosen.has("default") else chosen
    if chosen.text("_type", "") not in _BY_MODULE:
        return Scheme(default=_format(chosen), rules=tuple(rules), ends=ends)
    data = chosen.part("_data")
    named = data.part("fqn_to_config" if data.has("fqn_to_config") else "module_fqn_to_config")
    if len(named.values) > MOST_RULES:
        raise data.error("fqn_to_config", f"lists {len(named.values)} modules")
    default = KEPT
    for name, own in named.values.items():
        form = _format(named.part(name)) if own is not None else KEPT
        if name == "_default":
            default = form
        else:
            rules.append((_rule(name), form))
    return Scheme(default=default, rules=tuple(rules), ends=ends)


def _rule(name: str) -> Rule:
    return Rule("match", name[3:]) if name.startswith("re:") else Rule("name", name)


def _format(own: Config) -> WeightFormat:
    kind = own.text("_type")
    reader = _TYPES.get(kind)
    if reader is None:
        known = ", ".join(_TYPES)
        raise own.error("_type", f"is {kind[:50]!r}, which is not known; known are {known}")
    return reader(own.part("_data"))


def _four_bits(data: Config) -> WeightFormat:
    group = group_of(data, "group_size")
    return WeightFormat("int4", 0.5 + (4.0 / group if group > 0 else 0.0))


def _any_bits(data: Config) -> WeightFormat:
    bits, group = _bits(data), _group(data)
    form = weights.integer(bits, group)
    if _plain(data.values.get("mapping_type", "SYMMETRIC")) == "SYMMETRIC":
        return form
    return WeightFormat(form.precision, form.bytes + (1.0 / group if group > 0 else 0.0))


def _plain(value: Any) -> Any:
    """Return what `{"_type": "torch.dtype", "_data": "int4"}` states."""
    return value.get("_data") if isinstance(value, Mapping) else value


def _bits(data: Config) -> int:
    stated = data.values.get("weight_dtype", data.values.get("dtype", data.values.get("bit_width")))
    found = re.fullmatch(r"(?:torch\.)?u?(?:int)?(\d)", str(_plain(stated)))
    if not found or not 1 <= int(found[1]) <= 8:
        raise data.error("weight_dtype", f"is {str(stated)[:40]!r}, expected int1 to int8")
    return int(found[1])


def _group(data: Config) -> int:
    """Return the weights that share a scale, −1 for a whole row."""
    for key in ("weight_granularity", "granularity"):
        value = data.values.get(key)
        if isinstance(value, Mapping):
            own = data.part(key)
            inner = own.part("_data") if isinstance(own.values.get("_data"), Mapping) else own
            return group_of(inner, "group_size", default=-1)
    return group_of(data, "group_size", default=-1)


def _blocks(data: Config) -> WeightFormat:
    """Return a float format whose block of weights shares an 8-bit scale."""
    kind = str(_plain(data.values.get("weight_dtype", data.values.get("elem_dtype", "float8"))))
    size = group_of(data, "block_size", default=32)
    return weights.float4(size) if "float4" in kind else weights.float8_group(size)


_TYPES: dict[str, Callable[[Config], WeightFormat]] = {
    "Int4WeightOnlyConfig": _four_bits,
    "Int8WeightOnlyConfig": lambda data: weights.integer(
        8, group_of(data, "group_size", default=-1)
    ),
    "IntxWeightOnlyConfig": _any_bits,
    "UIntXWeightOnlyConfig": _any_bits,
    "GemliteUIntXWeightOnlyConfig": _any_bits,
    "Int8DynamicActivationInt8WeightConfig": lambda data: weights.integer8(),
    "Int8StaticActivationInt8WeightConfig": lambda data: weights.integer8(),
    "Int8DynamicActivationInt4WeightConfig": lambda data: weights.integer(
        4, group_of(data, "group_size", default=32)
    ),
    "Int8DynamicActivationIntxWeightConfig": _any_bits,
    "Int4DynamicActivationInt4WeightConfig": lambda data: weights.integer(4),
    "Float8WeightOnlyConfig": lambda data: weights.float8(weight_only=True),
    "Float8DynamicActivationFloat8WeightConfig": lambda data: weights.float8(),
    "Float8StaticActivationFloat8WeightConfig": lambda data: weights.float8(),
    "Float8DynamicActivationInt4WeightConfig": _four_bits,
    "MXFPInferenceConfig": _blocks,
    "MXDynamicActivationMXWeightConfig": _blocks,
    "NVFP4InferenceConfig": lambda data: weights.float4(16),
    "NVFP4DynamicActivationNVFP4WeightConfig": lambda data: weights.float4(16),
    "NVFP4WeightOnlyConfig": lambda data: weights.float4(16, weight_only=True),
}

_OLD_TYPES = {
    "int4_weight_only": "Int4WeightOnlyConfig",
    "int4wo": "Int4WeightOnlyConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8wo": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "int8dq": "Int8DynamicActivationInt8WeightConfig",
    "int8_dynamic_activation_int4_weight": "Int8DynamicActivationInt4WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
    "float8wo": "Float8WeightOnlyConfig",
    "float8_dynamic_activation_float8_weight": "Float8DynamicActivationFloat8WeightConfig",
    "float8dq": "Float8DynamicActivationFloat8WeightConfig",
}


def _old(part: Config, name: str, arguments: Config) -> WeightFormat:
    found = _OLD.fullmatch(name[:100])
    kind = _OLD_TYPES.get(found["base"]) if found else None
    if kind is None or found is None:
        known = ", ".join(_OLD_TYPES)
        raise part.error("quant_type", f"is {name[:40]!r}, which is not known; known are {known}")
    size = {"group_size": int(found["group"])} if found["group"] else {}
    return _TYPES[kind](Config({**size, **arguments.values}, part.where, arguments.prefix))
