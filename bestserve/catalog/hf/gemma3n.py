"""Gemma 3n: per-layer embeddings, alternating updates and low-rank residuals around Gemma 3."""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.catalog.hf.per_layer_inputs import borrowing, per_layer_parameters
from bestserve.models.step.architecture import Architecture, Ffn

MODEL_TYPES = ("gemma3n_text",)

# What Transformers' Gemma3nTextConfig fills in; the published multimodal files rely on it.
DEFAULTS = {
    "vocab_size": 262_400,
    "hidden_size": 2048,
    "intermediate_size": 16_384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 256,
    "num_kv_shared_layers": 15,
    "altup_num_inputs": 4,
    "laurel_rank": 64,
}
_EVERY = 5  # one layer in so many attends to everything


def architecture(config: Config) -> Architecture:
    """Read the text part of a Gemma 3n config."""
    config = Config({**DEFAULTS, **config.values}, config.where, config.prefix)
    window = config.integer("sliding_window")
    sliding = grouped_query(config, kind="sliding", window=window, qk_norm=True)
    kinds = {"sliding_attention": sliding, "full_attention": grouped_query(config, qk_norm=True)}
    types = config.layer_types(kinds) or tuple(
        "full_attention" if (i + 1) % _EVERY == 0 else "sliding_attention"
        for i in range(config.layers())
    )
    layers: list[Layer] = [
        (dataclasses.replace(kinds[kind], borrows_kv=borrows), ffn)
        for kind, borrows, ffn in zip(types, borrowing(config), _widths(config), strict=True)
    ]
    extra = per_layer_parameters(config) + _updates(config)
    return assemble(config, layers, tied=True, norms_per_layer=4, extra=extra)


def _widths(config: Config) -> list[Ffn]:
    widths = config.values.get("intermediate_size")
    if not isinstance(widths, list):
        return [dense(config)] * config.layers()
    if len(widths) != config.layers():
        raise config.error("intermediate_size", f"has {len(widths)} entries for its layers")
    each = [Config({"intermediate_size": w}, config.where, config.prefix) for w in widths]
    return [dense(own) for own in each]


def _updates(config: Config) -> int:
    """Return the parameters of alternating updates and low-rank residuals of all layers [1]."""
    hidden, copies = config.integer("hidden_size"), config.integer("altup_num_inputs")
    update = copies * copies + copies * copies**2 + copies * hidden + 2 * hidden
    residual = 2 * hidden * config.integer("laurel_rank") + hidden
    return config.layers() * (update + residual) + 2 * (copies - 1) * hidden * hidden
