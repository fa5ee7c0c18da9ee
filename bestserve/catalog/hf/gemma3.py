"""Gemma 3: like Gemma 2 with norms on queries and keys and five sliding layers per full one."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("gemma3_text",)

# What Transformers' Gemma3TextConfig fills in; the published multimodal files rely on it.
DEFAULTS = {
    "vocab_size": 262_208,
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
}


def architecture(config: Config) -> Architecture:
    """Read the text part of a Gemma 3 config."""
    config = Config({**DEFAULTS, **config.values}, config.where, config.prefix)
    window = config.integer("sliding_window")
    sliding = grouped_query(config, kind="sliding", window=window, qk_norm=True)
    kinds = {"sliding_attention": sliding, "full_attention": grouped_query(config, qk_norm=True)}
    every = config.integer("sliding_window_pattern")
    types = config.layer_types(kinds) or tuple(
        "sliding_attention" if (i + 1) % every else "full_attention" for i in range(config.layers())
    )
    layers = [(kinds[kind], dense(config)) for kind in types]
    return assemble(config, layers, tied=True, norms_per_layer=4)
