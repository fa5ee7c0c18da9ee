"""Qwen2 and Qwen2.5: grouped queries with biases on q, k and v."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text")


def architecture(config: Config) -> Architecture:
    """Read a Qwen2 config; layers from `max_window_layers` on slide if windows are switched on."""
    full = grouped_query(config, bias=True)
    ffn = dense(config)
    first_sliding = config.layers()
    sliding = full
    if config.flag("use_sliding_window", False):
        window = config.integer("sliding_window")
        sliding = grouped_query(config, kind="sliding", window=window, bias=True)
        first_sliding = config.integer("max_window_layers", minimum=0)
    layers: list[Layer] = [
        (full if i < first_sliding else sliding, ffn) for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False)
