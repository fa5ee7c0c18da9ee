"""OPT: multi-head attention and a two-matrix feed-forward part with biases, learned positions."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("opt",)

POSITION_OFFSET = 2
"""OPT's position table starts with two unused rows."""


def architecture(config: Config) -> Architecture:
    """Read an OPT config (all but 350m, whose embedding is narrower and which norms last)."""
    hidden = config.integer("hidden_size")
    if config.integer("word_embed_proj_dim", default=hidden) != hidden:
        raise config.error("word_embed_proj_dim", "differs from hidden_size: not supported")
    if not config.flag("do_layer_norm_before", True):
        raise config.error("do_layer_norm_before", "is false: not supported")
    attention = grouped_query(config, bias=True, o_bias=True)
    ffn = dense(config, "ffn_dim", gated=False, bias=True)
    positions = config.integer("max_position_embeddings") + POSITION_OFFSET
    return assemble(
        config,
        [(attention, ffn)] * config.layers(),
        tied=True,
        norm_bias=True,
        extra=positions * hidden,
    )
