"""Gemma 2: four norms a layer, every other layer attends to a sliding window."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("gemma2",)


def architecture(config: Config) -> Architecture:
    """Read a Gemma 2 config; without `layer_types`, even layers slide."""
    sliding = grouped_query(config, kind="sliding", window=config.integer("sliding_window"))
    kinds = {"sliding_attention": sliding, "full_attention": grouped_query(config)}
    types = config.layer_types(kinds) or tuple(
        "full_attention" if i % 2 else "sliding_attention" for i in range(config.layers())
    )
    layers = [(kinds[kind], dense(config)) for kind in types]
    return assemble(config, layers, tied=True, norms_per_layer=4)
