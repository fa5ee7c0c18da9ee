"""Llama 2/3, Yi and Granite 3: grouped queries, SwiGLU, two RMSNorms a layer."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("llama", "granite")


def architecture(config: Config) -> Architecture:
    """Read a Llama config; `attention_bias` and `mlp_bias` put biases on all their matrices."""
    bias = config.flag("attention_bias", False)
    attention = grouped_query(config, bias=bias, o_bias=bias)
    layer = (attention, dense(config, bias=config.flag("mlp_bias", False)))
    return assemble(config, [layer] * config.layers(), tied=False)
