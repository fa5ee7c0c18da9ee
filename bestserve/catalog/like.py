"""A config.json of unknown type, read as one of a known type: only when asked, and only checked.

The number of parameters decides whether the likeness holds: as the user states it, or as
`model.safetensors.index.json` beside the file has it, in parameters or in bytes.
"""

from __future__ import annotations

from pathlib import Path

from bestserve.catalog.hf import families
from bestserve.catalog.hf.config import Config
from bestserve.catalog.models import WHAT, config_at, model_from_config
from bestserve.errors import DataError, InputError, nearest_names
from bestserve.models.step.parameters import parameter_counts
from bestserve.readers.mappings import read_mapping
from bestserve.readers.paths import shown, user_path
from bestserve.specs.model import Model

WITHIN = 0.02
"""Deviation of the counts up to which two models are taken to be alike."""

LARGEST_INDEX = 50_000_000


def load_model_like(path: str | Path, like: str, parameters: float | None = None) -> Model:
    """Read a config.json as if its `model_type` were `like`.

    parameters : how many the publisher counts; None: the index beside the file says

    Raises InputError if nothing states a count or `like` is no type, DataError if counts differ.
    """
    if like not in families():
        near = ", ".join(nearest_names(like, families()) or ("llama", "mixtral", "deepseek_v3"))
        raise InputError(f"like = {like[:40]!r} is no type that bestserve reads; nearest: {near}")
    file, values = config_at(user_path(path))
    own = str(values.get("model_type"))[:60]
    where = f"{WHAT} {shown(file)}"
    model = model_from_config({**values, "model_type": like}, name=shown(path), where=where)
    stated, source = (parameters, "stated") if parameters else _index(file, model)
    if stated is None:
        raise InputError(
            f"{where}: read like {like!r} it has {model.parameters().total:,} parameters, which "
            "nothing confirms; give --parameters, or put model.safetensors.index.json beside it"
        )
    counted = float(model.parameters().total)
    if abs(counted / stated - 1) > WITHIN:
        raise DataError(
            f"{where}: read like {like!r} it has {counted:,.0f} parameters, {stated:,.0f} are "
            f"{source}: it is not alike"
        )
    note = f"type {own!r} read like {like!r}: {counted:,.0f} parameters, {stated:,.0f} {source}"
    kept = {field: getattr(model, field) for field in Model.model_fields}
    return Model(**{**kept, "notes": (note, *model.notes)})


def _index(file: Path, model: Model) -> tuple[float | None, str]:
    """Return the parameters that the index beside a config states, in the text part's terms."""
    index = file.with_name("model.safetensors.index.json")
    if not index.is_file():
        return None, ""
    found = Config(
        read_mapping(index, "safetensors index", "json", limit=LARGEST_INDEX), shown(index)
    ).part("metadata")
    towers = model.architecture.tower_parameters
    if found.has("total_parameters"):
        return found.number("total_parameters") - towers, "in its index"
    if not found.has("total_size"):
        return None, ""
    counts, parts = parameter_counts(model.architecture), model.formats().parts
    held = counts.attention * parts.attention.bytes + counts.experts * parts.experts.bytes
    held += (counts.dense_ffn + counts.shared_experts) * parts.ffn.bytes
    held += counts.embedding * parts.embedding.bytes + counts.lm_head * parts.head.bytes
    held += 2.0 * (counts.router + counts.norms + counts.extra)
    # Bytes are compared at the formats' mean size of a parameter.
    size = found.number("total_size") - 2.0 * towers
    return size / held * counts.total, "by the bytes of its index"
