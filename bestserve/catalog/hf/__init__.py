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
from bestserve.errors import DataError, nearest_names
from bestserve.models.step.architecture import Architecture

ENTRY_POINTS = "bestserve.architectures"
_HELPERS = {"config", "layers", "formats"}


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
        if module.name not in _HELPERS:
            family = cast(Family, importlib.import_module(f"{__name__}.{module.name}"))
            found.update(dict.fromkeys(family.MODEL_TYPES, family))
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

    The embedding tie and the quantisation are often stated outside `text_config` only.
    """
    outer = Config(values, where)
    for key in ("text_config", "llm_config"):
        if outer.has(key):
            inner = outer.part(key)
            shared = {
                name: values[name]
                for name in ("tie_word_embeddings", *QUANTISATION)
                if name in values and inner.values.get(name) is None
            }
            return Config({**shared, **inner.values}, where, f"{key}.")
    return outer


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
