"""The catalogue as plain rows, for tables and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from bestserve.catalog.files import looks_like_path
from bestserve.catalog.hardware import list_hardware, load_hardware
from bestserve.catalog.models import list_models, load_model
from bestserve.errors import UnknownNameError
from bestserve.specs.hardware import Hardware
from bestserve.specs.model import Model, PublishedCount

Value = str | int | float


class Row(NamedTuple):
    """One line of a record: what it says, in which unit, how it is known and from where."""

    field: str
    value: Value
    unit: str
    kind: str
    source: str


def catalog_rows(kind: Literal["hardware", "models"]) -> list[dict[str, Value]]:
    """Return one row per record with the figures that tell records apart, in SI units.

    kind : "hardware" or "models"
    """
    if kind == "hardware":
        return [_hardware_row(load_hardware(name)) for name in list_hardware()]
    return [_model_row(load_model(name)) for name in list_models()]


def describe(name: str) -> list[Row]:
    """Return every figure of the GPU or model called `name`, with unit, kind and source.

    `name` may be any spelling or path that `load_hardware` or `load_model` accepts. Raises
    UnknownNameError with the nearest names of both catalogues.
    """
    if looks_like_path(name, ".toml") and not name.endswith(".json"):
        if Path(name).expanduser().is_dir():
            return describe_model(load_model(name))
        return describe_hardware(load_hardware(name))
    if name.endswith(".json"):
        return describe_model(load_model(name))
    try:
        return describe_hardware(load_hardware(name))
    except UnknownNameError:
        pass
    try:
        return describe_model(load_model(name))
    except UnknownNameError:
        known = [*list_hardware(), *list_models()]
        raise UnknownNameError("GPU or model", name, known, "see `bestserve catalog`") from None


def describe_hardware(hardware: Hardware) -> list[Row]:
    """Return the rows of one GPU."""
    rows = [
        Row("name", hardware.name, "", "", hardware.origin),
        Row("title", hardware.title, "", "", ""),
        Row("vendor", hardware.vendor, "", "", ""),
        Row("generation", hardware.generation, "", "", ""),
    ]
    for name, figure in hardware.figures().items():
        source = f"{figure.source} ({figure.date})" if figure.date else figure.source
        rows.append(Row(name, figure.value, figure.unit, figure.kind, source))
    if hardware.notes:
        rows.append(Row("notes", hardware.notes, "", "", ""))
    return rows


def describe_model(model: Model) -> list[Row]:
    """Return the rows of one model: formats, shapes of each layer group, parameters by part."""
    counts = model.parameters()
    arch = model.architecture
    config: list[tuple[str, Value, str]] = [
        ("weights", model.weights, ""),
        ("attention_weights", model.attention or model.weights, ""),
        ("experts", model.experts if model.is_moe else "none", ""),
        ("quantisation", model.quantisation or "none", ""),
        ("kv_cache_dtype", model.kv_cache_dtype, ""),
        ("max_position_embeddings", model.max_position_embeddings, "tokens"),
        ("num_layers", arch.num_layers, "1"),
        ("hidden_size", arch.hidden_size, "1"),
        ("vocab_size", arch.vocab_size, "tokens"),
        ("tie_word_embeddings", str(arch.tie_word_embeddings).lower(), ""),
    ]
    rows = [Row("name", model.name, "", "", model.source)]
    rows += [Row(field, value, unit, "datasheet", model.source) for field, value, unit in config]
    for number, group in enumerate(arch.groups):
        for part, shapes in (("attention", group.attention), ("ffn", group.ffn)):
            text = ", ".join(
                f"{field}={getattr(shapes, field)}"
                for field in shapes.__dataclass_fields__
                if getattr(shapes, field)
            )
            label = f"group_{number}_{part} ({group.count} layers)"
            rows.append(Row(label, text, "", "datasheet", model.source))
    for part in (
        "embedding",
        "lm_head",
        "attention",
        "dense_ffn",
        "experts",
        "shared_experts",
        "router",
        "norms",
        "extra",
        "active",
        "total",
    ):
        source = "counted from the shapes"
        rows.append(Row(f"parameters_{part}", getattr(counts, part), "1", "derived", source))
    if model.published is not None:
        rows.append(Row("parameters_published", *_published(model.published)))
    rows += [Row("note", note, "", "", "") for note in model.notes]
    return rows


def _published(count: PublishedCount) -> tuple[float, str, str, str]:
    source = count.source
    if count.without_embedding:
        source += "; without embedding"
    if count.elsewhere:
        source += f"; of these {count.elsewhere:g} elsewhere: {count.elsewhere_is}"
    return count.parameters, "1", "secondary", source


def _hardware_row(hardware: Hardware) -> dict[str, Value]:
    return {
        "name": hardware.name,
        "title": hardware.title,
        "vendor": hardware.vendor,
        "generation": hardware.generation,
        "memory_bytes": hardware.memory_bytes.value,
        "memory_bandwidth": hardware.memory_bandwidth.value,
        "flops_bf16": hardware.flops_bf16.value,
        "flops_fp8": hardware.flops_fp8.value,
        "flops_fp4": hardware.flops_fp4.value,
        "link_bandwidth": hardware.link_bandwidth.value,
        "gpus_per_node": int(hardware.gpus_per_node.value),
    }


def _model_row(model: Model) -> dict[str, Value]:
    counts = model.parameters()
    return {
        "name": model.name,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "layers": model.architecture.num_layers,
        "attention": "+".join(dict.fromkeys(g.attention.kind for g in model.architecture.groups)),
        "ffn": "+".join(dict.fromkeys(g.ffn.kind for g in model.architecture.groups)),
        "weights": model.weights,
        "experts": model.experts if model.is_moe else "none",
        "max_position_embeddings": model.max_position_embeddings,
    }
