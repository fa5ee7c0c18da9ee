"""The catalogue as plain rows, for tables and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from bestserve.catalog import engines
from bestserve.catalog.engines import EngineRecord, engine_record, list_engines
from bestserve.catalog.hardware import list_hardware, load_hardware
from bestserve.catalog.models import is_model_path, list_models, load_model
from bestserve.errors import UnknownNameError
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import user_path
from bestserve.specs import hardware
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


def catalog_rows(kind: Literal["hardware", "models", "engines"]) -> list[dict[str, Value]]:
    """Return one row per record with the figures that tell records apart, in SI units."""
    if kind == "hardware":
        return [_hardware_row(load_hardware(name)) for name in list_hardware()]
    if kind == "models":
        return [_model_row(load_model(name)) for name in list_models()]
    return [_engine_row(name, engine_record(name)) for name in list_engines()]


def describe(name: str) -> list[Row]:
    """Return every figure of a GPU, model or engine, with unit, kind and source.

    name : any spelling or path that `load_hardware`, `load_model` or `load_engine` accepts

    Raises UnknownNameError with the nearest names of all catalogues, InputError for an ambiguous
    GPU, DataError for an unreadable file.
    """
    if name.endswith(".toml"):
        return _describe_toml(user_path(name))
    if is_model_path(name):
        return describe_model(load_model(name))
    loaders: tuple[Callable[[str], list[Row]], ...] = (
        lambda n: describe_hardware(load_hardware(n)),
        lambda n: describe_engine(engine_record(n)),
        lambda n: describe_model(load_model(n)),
    )
    for loader in loaders:
        try:
            return loader(name)
        except UnknownNameError:
            continue
    known = [*list_hardware(), *list_engines(), *list_models()]
    raise UnknownNameError("GPU, engine or model", name, known, "see `bestserve catalog`")


def _describe_toml(path: Path) -> list[Row]:
    """Tell engine from hardware records by the figures they state."""
    figures = read_mapping(path, "record", "toml").get("figures")
    if isinstance(figures, dict) and set(figures) & set(engines.UNITS) - set(hardware.UNITS):
        return describe_engine(engine_record(path))
    return describe_hardware(load_hardware(path))


def describe_engine(record: EngineRecord) -> list[Row]:
    """Return the rows of one engine preset."""
    rows = [Row("name", record.constants.name, "", "", ""), Row("title", record.title, "", "", "")]
    rows += [Row(*row) for row in record.rows]
    return [*rows, Row("notes", record.notes, "", "", "")] if record.notes else rows


def describe_hardware(gpu: Hardware) -> list[Row]:
    """Return the rows of one GPU."""
    rows = [
        Row("name", gpu.name, "", "", gpu.origin),
        Row("title", gpu.title, "", "", ""),
        Row("vendor", gpu.vendor, "", "", ""),
        Row("generation", gpu.generation, "", "", ""),
    ]
    for name, figure in gpu.figures().items():
        source = f"{figure.source} ({figure.date})" if figure.date else figure.source
        rows.append(Row(name, figure.value, figure.unit, figure.kind, source))
    if gpu.notes:
        rows.append(Row("notes", gpu.notes, "", "", ""))
    return rows


def describe_model(model: Model) -> list[Row]:
    """Return the rows of one model: formats, shapes of each layer group, parameters by part."""
    counts = model.parameters()
    arch = model.architecture
    config: list[tuple[str, Value, str]] = [
        ("weights", model.weights, ""),
        ("attention_weights", model.attention or model.weights, ""),
        ("experts", model.experts if model.architecture.is_moe else "none", ""),
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


def _hardware_row(gpu: Hardware) -> dict[str, Value]:
    return {
        "name": gpu.name,
        "title": gpu.title,
        "vendor": gpu.vendor,
        "generation": gpu.generation,
        "memory_bytes": gpu.memory_bytes.value,
        "memory_bandwidth": gpu.memory_bandwidth.value,
        "flops_bf16": gpu.flops_bf16.value,
        "flops_fp8": gpu.flops_fp8.value,
        "flops_fp4": gpu.flops_fp4.value,
        "link_bandwidth": gpu.link_bandwidth.value,
        "gpus_per_node": int(gpu.gpus_per_node.value),
    }


def _engine_row(name: str, record: EngineRecord) -> dict[str, Value]:
    constants = record.constants
    return {
        "name": name,
        "title": record.title,
        "policy": constants.policy,
        "cuda_graphs": str(constants.cuda_graphs).lower(),
        "a_step": constants.a_step,
        "a_seq": constants.a_seq,
        "max_num_seqs": constants.max_num_seqs,
        "max_num_batched_tokens": constants.max_num_batched_tokens,
        "gpu_memory_utilization": constants.gpu_memory_utilization,
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
        "experts": model.experts if model.architecture.is_moe else "none",
        "max_position_embeddings": model.max_position_embeddings,
    }
