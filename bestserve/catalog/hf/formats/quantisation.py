"""Number formats of a checkpoint: its quantisation section applied to its own modules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bestserve.catalog.hf.config import QUANTISATION, Config
from bestserve.catalog.hf.formats import weights
from bestserve.catalog.hf.formats.modules import Module, Part, modules
from bestserve.catalog.hf.formats.named import read_scheme
from bestserve.catalog.hf.formats.rules import (
    MOST_EXPRESSIONS,
    ModuleNames,
    Rule,
    speaks_of_layers,
)
from bestserve.catalog.hf.formats.scheme import Scheme
from bestserve.catalog.hf.formats.unknown import odd_sections, unknown_keys
from bestserve.errors import DataError
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import StoredWeights, WeightFormat
from bestserve.specs.model import KvDtype


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What the checkpoint stores in which format.

    method : the checkpoint's own word ("" if it has none)
    stored : formats by part; None: 16 bits throughout
    kv_cache_dtype : of the cache that the checkpoint brings scales for, else "auto"
    notes : rules and keys that had no effect or were not understood
    """

    method: str = ""
    stored: StoredWeights | None = None
    kv_cache_dtype: KvDtype = "auto"
    notes: tuple[str, ...] = ()


def section(config: Config) -> Config | None:
    """Return the quantisation section of a config, under whatever key it stands."""
    for key in QUANTISATION:
        if config.has(key) and config.part(key).values:
            return config.part(key)
    return None


def read_quantisation(config: Config, arch: Architecture) -> Quantisation:
    """Return the formats that the quantisation section states for the modules of `arch`.

    Raises DataError for a method or format that is not known, or that no engine here loads.
    """
    part = section(config)
    if part is None:
        return Quantisation(notes=tuple(odd_sections(config)))
    method = _method(part)
    scheme = read_scheme(part, method)
    experts = config.text("expert_dtype", part.text("moe_quant_algo", "")).upper()
    if experts in ("FP4", "NVFP4"):  # DeepSeek-V4 says apart what its experts are stored in
        rule = (Rule("name", "experts"), weights.float4(32 if experts == "FP4" else 16))
        scheme = replace(scheme, rules=(rule, *scheme.rules))
    model_type = config.text("model_type", "")
    texts = " ".join(rule.text for rule in (*(r for r, _ in scheme.rules), *scheme.only))
    many = sum(group.count * group.ffn.num_experts for group in arch.groups)
    found = modules(
        arch,
        model_type,
        nested=bool(config.prefix),
        every_layer=bool(scheme.beside or _SINGLE_LAYER.search(texts)),
        every_expert=bool(_SINGLE_EXPERT.search(texts)) and many <= MOST_EXPERTS,
    )
    names = ModuleNames([module.names for module in found])
    formats, notes = _applied(scheme, found, names, arch.num_layers)
    stored = _by_part(found, formats, scheme)
    if scheme.unserved:
        raise DataError(
            f"{part.where}: key {part.prefix.rstrip('.')} is {scheme.unserved}; its weights would "
            f"take {_sizes(found, formats)}; take the original checkpoint, or one quantised for "
            "servers"
        )
    kv, kv_notes = _kv(part)
    unknown = unknown_keys(part)
    return Quantisation(
        method=method,
        stored=stored,
        kv_cache_dtype=kv,
        notes=(*scheme.notes, *notes, *kv_notes, *unknown, *odd_sections(config)),
    )


def _sizes(found: tuple[Module, ...], formats: list[WeightFormat]) -> str:
    """Return the size of the weights, with embedding and head as they are and in 16 bits."""
    ends = ("embedding", "head")
    stored, kept = 0.0, 0.0
    for module, form in zip(found, formats, strict=True):
        stored += module.elements * form.bytes / 1e9
        kept += module.elements * (2.0 if module.part in ends else form.bytes) / 1e9
    if f"{stored:.2f}" == f"{kept:.2f}":
        return f"{stored:.2f} GB"
    return f"{stored:.2f} GB ({kept:.2f} GB with embedding and head in 16 bits)"


MOST_EXPERTS = 30_000
_SINGLE_LAYER = re.compile(r"\d|\?|layers\\?\.\.")
_SINGLE_EXPERT = re.compile(r"experts\W{1,2}\d")


def _method(part: Config) -> str:
    method = part.text("quant_method", "").lower()
    if method:
        return method
    producer = part.values.get("producer")
    by = producer.get("name", "") if isinstance(producer, Mapping) else ""
    if by == "modelopt" or part.has("quant_algo") or part.part("quantization").has("quant_algo"):
        return "modelopt"
    if part.has("config_groups"):
        return "compressed-tensors"
    if part.has("global_quant_config"):
        return "quark"
    if part.has("w_bit") or (part.has("zero_point") and part.has("version")):
        return "awq"
    if part.has("load_in_4bit") or part.has("load_in_8bit"):
        return "bitsandbytes"
    if part.has("desc_act") or part.has("damp_percent"):
        return "gptq"
    if part.has("bits") and part.has("group_size"):
        return "mlx"
    raise part.error("quant_method", "is missing; is the file complete?")


def _applied(
    scheme: Scheme, found: tuple[Module, ...], names: ModuleNames, layers: int
) -> tuple[list[WeightFormat], list[str]]:
    """Return the format of each module, and what was left out."""
    formats: list[WeightFormat | None] = [None] * len(found)
    expressions = sum(rule.how in ("match", "search") for rule, _ in scheme.rules)
    dead: list[str] = []
    opaque: list[str] = []
    hits: dict[str, bool] = {}
    for rule, form in scheme.rules:
        too_many = rule.how in ("match", "search") and expressions > MOST_EXPRESSIONS
        covered = None if too_many else names.covered(rule)
        if covered is None:
            opaque.append(rule.text)
            continue
        hits[rule.text] = hits.get(rule.text, False) or bool(covered)
        for index in covered:
            if formats[index] is None and _reaches(rule, found[index].part):
                formats[index] = form
    dead = [text for text, hit in hits.items() if not hit]
    dead = [text for text in dead if speaks_of_layers(Rule("name", text), layers)]
    chosen = frozenset().union(*(names.covered(rule) or () for rule in scheme.only))
    settled = [
        form
        if form is not None
        else _default(scheme, module.part, not scheme.only or index in chosen)
        for index, (module, form) in enumerate(zip(found, formats, strict=True))
    ]
    if scheme.only and not chosen:
        dead += [rule.text for rule in scheme.only]
    notes = []
    if dead:
        notes.append(f"quantisation rules that name no module of this model: {_some(dead)}")
    if opaque:
        notes.append(f"quantisation rules that are not interpreted: {_some(opaque)}")
    return settled, notes


def _reaches(rule: Rule, part: Part) -> bool:
    """Embedding and head are quantised only where a rule names them: ".*" does not mean them."""
    return part not in ("embedding", "head") or part[:4] in rule.text


def _default(scheme: Scheme, part: Part, chosen: bool) -> WeightFormat:
    if not chosen or (part in ("embedding", "head") and not scheme.ends):
        return weights.KEPT
    return scheme.default


def _some(texts: list[str]) -> str:
    shown = ", ".join(repr(text[:60]) for text in texts[:3])
    return shown if len(texts) <= 3 else f"{shown} and {len(texts) - 3} more"


def _by_part(
    found: tuple[Module, ...], formats: list[WeightFormat], scheme: Scheme
) -> StoredWeights:
    """Return each part's mean bytes per weight and the precision of most of its weights."""
    sizes: dict[Part, dict[WeightFormat, float]] = {}
    beside: dict[Part, float] = {}
    for module, form in zip(found, formats, strict=True):
        part = sizes.setdefault(module.part, {})
        part[form] = part.get(form, 0.0) + module.elements
        if form == scheme.default:
            beside[module.part] = beside.get(module.part, 0.0) + scheme.beside

    def of(part: Part, otherwise: Part | None = None) -> WeightFormat:
        held = sizes.get(part, {})
        total = sum(held.values())
        if total <= 0:
            return of(otherwise) if otherwise else weights.KEPT
        by_precision: dict[Any, float] = {}
        for form, elements in held.items():
            by_precision[form.precision] = by_precision.get(form.precision, 0.0) + elements
        most = max(by_precision, key=lambda precision: by_precision[precision])
        size = sum(form.bytes * elements for form, elements in held.items())
        mean = (size + beside.get(part, 0.0)) / total
        return WeightFormat(most, mean)

    return StoredWeights(
        attention=of("attention"),
        ffn=of("ffn", "attention"),
        experts=of("experts" if sizes.get("experts") else "ffn", "attention"),
        embedding=of("embedding"),
        head=of("head"),
    )


def _kv(part: Config) -> tuple[KvDtype, list[str]]:
    """Return the cache format that the checkpoint brings scales for."""
    inner = part.part("quantization")
    for holder in (part, inner):
        for key in ("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_config"):
            scheme = holder.values.get(key)
            if not scheme:
                continue
            found = _kv_format(scheme)
            if found:
                return found, []
            text = str(scheme)[:60]
            return "auto", [f"{holder.prefix}{key} = {text} is not known: the cache is 16 bit"]
    layers = part.part("layer_quant_config").values
    for name, stated in layers.items():
        outputs = stated.get("output_tensors") if isinstance(stated, Mapping) else None
        kind = outputs.get("dtype", "") if isinstance(outputs, Mapping) else ""
        if ("k_proj" in name or "kv" in name) and str(kind).startswith("fp8"):
            return "fp8", []
    return "auto", []


def _kv_format(scheme: object) -> KvDtype | None:
    if isinstance(scheme, str):
        words: dict[str, KvDtype] = {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "fp8", "NONE": "auto"}
        return words.get(scheme.upper())
    if isinstance(scheme, Mapping):
        bits = scheme.get("num_bits")
        if bits == 8 or str(scheme.get("dtype", "")).startswith("fp8"):
            return "fp8"
        if bits == 4 and scheme.get("type") == "float":
            return "nvfp4"
    return None
