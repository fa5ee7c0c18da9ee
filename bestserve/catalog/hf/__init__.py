"""Hugging Face config.json files: one architecture family per module, discovered.

A family module has ``MODEL_TYPES`` (the `model_type` values it reads) and
``architecture(config) -> Architecture``. Plug-ins add modules through the entry point group
``bestserve.architectures``. A `model_type` that no module names is refused, never guessed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from bestserve.catalog.hf.config import QUANTISATION, Config
from bestserve.catalog.hf.defaults import DEFAULTS
from bestserve.catalog.hf.names import NESTED, RENAMED, TEXT_TYPES
from bestserve.errors import DataError, nearest_names
from bestserve.models.step.architecture import Architecture

ENTRY_POINTS = "bestserve.architectures"


class Family(Protocol):
    """What a family module offers."""

    MODEL_TYPES: tuple[str, ...]

    def architecture(self, config: Config) -> Architecture:
        """Return the architecture that `config` describes."""


@lru_cache(maxsize=1)
def families() -> Mapping[str, Family]:
    """Return `model_type` -> family module, of all bundled families."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}")
        types = getattr(family, "MODEL_TYPES", ())  # modules without are what families share
        found.update(dict.fromkeys(types, cast(Family, family)))
    return found


@lru_cache(maxsize=1)
def _plugins() -> Mapping[str, Family]:
    found: dict[str, Family] = {}
    for point in entry_points(group=ENTRY_POINTS):
        family = cast(Family, point.load())
        found.update(dict.fromkeys(family.MODEL_TYPES, family))
    return found


def text_part(values: Mapping[str, Any], where: str) -> Config:
    """Return the language model's part of a (possibly multimodal) config.

    The embedding tie and the quantisation are often stated outside the nested section only; what
    the section leaves out is the library's default for its type.
    """
    outer = Config(values, where)
    inner = outer
    shared: dict[str, Any] = {}
    for _ in range(DEEPEST):
        key = next((key for key in NESTED if inner.has(key)), None)
        if key is None:
            break
        shared |= {
            name: inner.values[name]
            for name in ("tie_word_embeddings", *QUANTISATION)
            if inner.values.get(name) is not None
        }
        whole, inner = inner, inner.part(key)
        if not inner.has("model_type"):
            named = TEXT_TYPES.get(whole.text("model_type", ""))
            inner = Config({**inner.values, "model_type": named}, where, inner.prefix)
    found = _usual_names(inner)
    if inner is outer:
        return found
    own = {name: value for name, value in found.values.items() if value is not None}
    defaults = DEFAULTS.get(found.text("model_type", ""), {})
    return Config({**defaults, **shared, **own}, where, inner.prefix)


DEEPEST = 4
"""Sections of the language model inside each other (thinker_config.text_config)."""


def _usual_names(config: Config) -> Config:
    model_type = config.values.get("model_type")
    names = RENAMED.get(model_type, {}) if isinstance(model_type, str) else {}
    found = {
        usual: config.values[own]
        for own, usual in names.items()
        if config.has(own) and not config.has(usual)
    }
    return Config({**config.values, **found}, config.where, config.prefix) if found else config


def read_architecture(config: Config) -> Architecture:
    """Return the architecture that `config` describes; DataError if no family reads it."""
    model_type = config.text("model_type")
    family = families().get(model_type) or _plugins().get(model_type)
    if family is None:
        near = nearest_names(model_type, families())
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise DataError(
            f"{config.where}: key {config.prefix}model_type names the architecture "
            f"{model_type[:60]!r}, which bestserve does not know and will not guess{hint}"
        )
    return family.architecture(config)
