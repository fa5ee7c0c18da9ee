"""Model records: the bundled ones, those of plug-ins, and the user's own config.json files.

A bundled record is a reduced config.json in a folder ``<org>--<name>`` with one extra key,
``_bestserve``: where its figures come from, the published parameter count, other names of the same
architecture (``aliases``) and checkpoints that differ in number formats only (``variants``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from bestserve.catalog.folders import data_folders, package_folder
from bestserve.catalog.hf import read_architecture, text_part
from bestserve.catalog.hf.config import MOST_LAYERS, QUANTISATION, Config, key_name
from bestserve.catalog.hf.context import context_of
from bestserve.catalog.hf.formats.quantisation import read_quantisation
from bestserve.catalog.hf.layers import FULL
from bestserve.catalog.hf.tower import tower_parameters
from bestserve.catalog.hf.vision import read_vision
from bestserve.catalog.precision_names import PrecisionSuffix, split_precision
from bestserve.errors import DataError, UnknownNameError
from bestserve.models.step.architecture import Architecture
from bestserve.models.step.device import Precision
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import is_folder, looks_like_path, shown, user_path
from bestserve.specs.model import KvDtype, Model, PublishedCount

WHAT = "model config"
MTP = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "num_mtp_layers")
LARGEST_CONFIG = 10_000_000
"""Bytes; the longest known config.json, quantisation lists included, has about 0.1 MB."""


def list_models() -> tuple[str, ...]:
    """Return the names of all known models as ``org/name``, sorted."""
    return tuple(sorted(_files(), key=str.lower))


def load_model(name_or_path: str | Path) -> Model:
    """Return a model by bundled name, usual spelling, or path of a config.json or snapshot folder.

    A quantised checkpoint of a known model ("…-FP8", "…-AWQ", "….w8a8") gets the base model's
    architecture and the named format. Raises UnknownNameError with the nearest names, or DataError
    for a file that cannot be read as a model.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or is_model_path(name):
        return _from_path(user_path(name))
    found = find_model(name)
    if found is None:
        hint = "see `bestserve catalog`, or give the path of a config.json"
        raise UnknownNameError("model", name, _spellings(), hint)
    return found


def find_model(name: str) -> Model | None:
    """Return the catalogue's model of this name or usual spelling, or None.

    Opens no path, whatever the name looks like: this is for the names that logs quote.
    """
    if name.startswith(("/", "~", "\\")):
        # A path on the machine that served the model: its last part is the model's name.
        name = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    if name.startswith("models--"):
        # Hugging Face's cache folder of org/name.
        name = name.removeprefix("models--").replace("--", "/", 1)
    return _named(name)


def is_model_path(name: str) -> bool:
    """Whether `name` is the path of a config.json or of a folder that holds one."""
    if looks_like_path(name, ".json"):
        return True
    folder = user_path(name)
    return bool(name) and is_folder(folder) and _config_file(folder) is not None


def model_from_config(values: Mapping[str, Any], *, name: str, where: str) -> Model:
    """Build a `Model` from the contents of a Hugging Face config.json.

    name : what to call it
    where : how error messages name the file

    Raises DataError naming file and key: unknown architecture, missing key, unusable value.
    """
    config = text_part(values, where)
    architecture = read_architecture(config)
    about = Config(values, where).part("_bestserve")
    towers = about.integer("tower_parameters", default=0, minimum=0, maximum=10**11)
    towers = towers or tower_parameters(values, architecture.hidden_size, where)
    architecture = dataclasses.replace(
        architecture,
        tower_parameters=towers,
        vision=read_vision(values, where),
        mtp_layers=config.integer(*MTP, default=0, minimum=0, maximum=MOST_LAYERS),
    )
    formats = read_quantisation(config, architecture)
    stored = formats.stored
    notes = [*about.strings("notes"), *formats.notes]
    if towers:
        size = 2 * towers / 1e9
        notes.append(f"text part; towers for images or sound take about {size:.1f} GB beside it")
    elif config.prefix:
        notes.append("text part only: vision and audio towers are not counted")
    notes += _unheeded(config, architecture)
    if any(group.attention.compress >= 0 for group in architecture.groups):
        notes.append("compressed attention is timed as latent attention, whose matrices are larger")
    context, unknown = context_of(config)
    notes += unknown
    if architecture.mtp_layers:
        notes.append("layers for multi-token prediction are not counted")
    return Model(
        name=name,
        architecture=architecture,
        weights=stored.ffn.precision if stored else "bf16",
        experts=stored.experts.precision if stored else "bf16",
        attention=stored.attention.precision if stored else None,
        stored=stored,
        quantisation=formats.method,
        kv_cache_dtype=formats.kv_cache_dtype,
        max_position_embeddings=context,
        published=_published(about),
        source=about.text("source", where),
        notes=tuple(notes),
        aliases=about.strings("aliases"),
    )


def _config(path: Path) -> dict[str, Any]:
    return read_mapping(path, WHAT, "json", limit=LARGEST_CONFIG)


def _unheeded(config: Config, arch: Architecture) -> list[str]:
    """Name `layer_types` that a reader made nothing of."""
    types = config.values.get("layer_types")
    if not isinstance(types, list):
        return []
    if not {"full", "mla"} >= {group.attention.kind for group in arch.groups}:
        return []
    other = sorted({key_name(kind) for kind in types if kind not in FULL})
    if not other:
        return []
    few = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
    return [f"{config.prefix}layer_types: {few} not applied: all layers attend"]


def _published(about: Config) -> PublishedCount | None:
    if not about.has("published"):
        return None
    part = about.part("published")
    elsewhere = part.part("elsewhere")
    return PublishedCount(
        parameters=part.number("parameters"),
        source=part.text("source"),
        without_embedding=part.flag("without_embedding", False),
        elsewhere=elsewhere.number("parameters") if elsewhere.values else 0.0,
        elsewhere_is=elsewhere.text("what", ""),
    )


@lru_cache(maxsize=1)
def _files() -> Mapping[str, Path]:
    """``org/name`` -> config.json, over all data folders; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in data_folders("models"):
        for path in sorted(folder.glob("*/config.json")):
            found.setdefault(path.parent.name.replace("--", "/", 1), path)
    return found


@lru_cache(maxsize=256)
def _bundled(name: str) -> Model:
    own = package_folder("models") / name.replace("/", "--", 1) / "config.json"
    path = own if own.is_file() else _files()[name]
    where = f"{WHAT} {path.parent.name}/config.json"
    return _copy(model_from_config(_config(path), name=name, where=where), record=name)


@lru_cache(maxsize=1)
def _spellings() -> Mapping[str, tuple[str, str]]:
    """Every spelling that the records state -> (record, variant or "")."""
    found: dict[str, tuple[str, str]] = {}
    for name, path in _files().items():
        about = Config(_config(path), f"{WHAT} {path.parent.name}").part("_bestserve")
        for spelling in (name, *about.strings("aliases")):
            found[spelling] = (name, "")
        for variant in about.part("variants").values:
            found[variant] = (name, variant)
    return found


@lru_cache(maxsize=1)
def _index() -> Mapping[str, tuple[str, str]]:
    """Lower-case spelling -> (record, variant or ""), with and without the organisation.

    A spelling without organisation that two records claim stays with neither.
    """
    full = {spelling.lower(): found for spelling, found in _spellings().items()}
    bare: dict[str, set[tuple[str, str]]] = {}
    for spelling, found in full.items():
        bare.setdefault(_bare(spelling), set()).add(found)
    unique = {key: next(iter(found)) for key, found in bare.items() if len(found) == 1}
    return {**unique, **full}


def _bare(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower()


def _named(name: str) -> Model | None:
    """Return the model that a spelling names, or None."""
    folder = name.replace("/", "--", 1)
    if "/" not in folder and "\\" not in folder and ".." not in folder and len(name) <= 120:
        own = package_folder("models") / folder / "config.json"
        if "/" in name and own.is_file() and own.parent.name == folder:
            return _bundled(name)  # without reading every record for its aliases
    found = _lookup(name)
    if found is not None:
        return found
    publisher = name.rsplit("/", 1)[0] if "/" in name else ""
    suffix = split_precision(name.rsplit("/", 1)[-1], publisher)
    if suffix is None:
        return None
    base = _lookup(f"{publisher}/{suffix.base}" if publisher else suffix.base)
    if base is None:
        return None
    if not publisher:
        suffix = split_precision(name, base.record.split("/", 1)[0]) or suffix
    return _quantised(base, suffix, name)


def _lookup(spelling: str) -> Model | None:
    index = _index()
    found = index.get(spelling.lower()) or index.get(_bare(spelling))
    if found is None:
        return None
    name, variant = found
    base = _bundled(name)
    if not variant:
        return base if spelling == name else _renamed(base, spelling)
    return _variant(base, variant, spelling)


def _copy(base: Model, **changes: Any) -> Model:
    kept = {field: getattr(base, field) for field in Model.model_fields}
    return Model(**{**kept, **changes})


def _renamed(base: Model, spelling: str) -> Model:
    notes = (*base.notes, f"same architecture as {base.record}")
    return _copy(base, name=spelling, aliases=(), notes=notes)


def _variant(base: Model, variant: str, spelling: str) -> Model:
    path = _files()[base.record]
    about = Config(_config(path), f"{WHAT} {path.parent.name}").part("_bestserve")
    stated = about.part("variants").part(variant)

    def precision(key: str, default: Precision) -> Precision:
        value = stated.text(key, default)
        if value not in get_args(Precision):
            raise stated.error(
                key, f"is {value[:40]!r}, known are {', '.join(get_args(Precision))}"
            )
        return value  # type: ignore[return-value]

    weights = precision("weights", "bf16")
    attention = precision("attention", weights)
    kv: KvDtype = "fp8" if stated.text("kv_cache_dtype", "auto") == "fp8" else "auto"
    return _copy(
        base,
        name=spelling,
        aliases=(),
        weights=weights,
        stored=None,
        attention=attention if attention != weights else None,
        experts=precision("experts", "bf16"),
        quantisation=stated.text("quantisation", ""),
        kv_cache_dtype=kv,
        notes=(*base.notes, f"architecture of {base.record}, formats: {stated.text('source')}"),
    )


def _quantised(base: Model, suffix: PrecisionSuffix, name: str) -> Model:
    if suffix.word == "fp8" and "fp8" in (base.weights[:3], base.experts[:3]):
        return _renamed(base, name)  # the publisher's own checkpoint is the FP8 one
    how = "quantised" if suffix.precision != "bf16" else "kept"
    return _copy(
        base,
        name=name,
        aliases=(),
        weights=suffix.precision,
        stored=None,
        attention=None,
        experts=suffix.precision if base.architecture.is_moe else "bf16",
        quantisation=suffix.word if suffix.precision != "bf16" else "",
        kv_cache_dtype=suffix.kv_cache_dtype,
        notes=(
            *base.notes,
            f"architecture of {base.record}; all linear layers {how} to {suffix.precision}, as the "
            "name says; give the checkpoint's config.json for its exceptions",
        ),
    )


def _from_path(path: Path) -> Model:
    """Read a config.json, a model folder, or a folder of the Hugging Face cache."""
    file, values = config_at(path)
    return model_from_config(values, name=shown(path), where=f"{WHAT} {shown(file)}")


def config_at(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the config.json that a path means, and its values with the quantisation beside it.

    Raises DataError where there is none; an adapter names its base.
    """
    file = _config_file(path)
    if file is None:
        raise DataError(
            f"{WHAT} {shown(path)}: no config.json in this folder; give the file's path"
        )
    if file.name == ADAPTER:
        raise DataError(_adapter(file))
    values = _config(file)
    return file, {**values, **_quantisation_beside(file, values)}


ADAPTER = "adapter_config.json"


def _adapter(file: Path) -> str:
    own = Config(_config(file), f"{WHAT} {shown(file)}")
    base = own.text("base_model_name_or_path", "")[:120]
    named = f"of {base!r}; give that as the model" if base else "and names no base; give the base"
    return f"{WHAT} {shown(file)}: is a LoRA adapter {named}, the adapter's own weights are small"


_BESIDE = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
}
"""Files in which tools leave the quantisation section when config.json has none -> their method."""


def _quantisation_beside(file: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    if any(values.get(key) for key in QUANTISATION):
        return {}
    for name, method in _BESIDE.items():
        beside = file.with_name(name)
        if beside.is_file():
            found = Config(_config(beside), f"{WHAT} {shown(beside)}")
            own = {**found.values, **found.part("quantization").values}
            own.pop("quantization", None)
            return {"quantization_config": {"quant_method": method, **own}}
    return {}


def _config_file(path: Path) -> Path | None:
    if not is_folder(path):
        return path
    if (path / "config.json").is_file():
        return path / "config.json"
    if (path / ADAPTER).is_file():
        return path / ADAPTER
    snapshots = sorted(path.glob("snapshots/*/config.json"))
    return snapshots[-1] if snapshots else None
