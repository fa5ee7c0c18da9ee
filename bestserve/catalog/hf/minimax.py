"""MiniMax-Text-01 and M1: lightning attention, every eighth layer attends; experts everywhere."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import (
    assemble,
    experts_beside,
    grouped_query,
    head_dim,
    linear_heads,
)
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("minimax", "minimax_text_01", "minimax_m1")


def architecture(config: Config) -> Architecture:
    """Read a MiniMax 01 config; `attn_type_list` (1: attends) or `layer_types` places attention."""
    heads, width = config.integer("num_attention_heads"), head_dim(config)
    lightning = linear_heads("lightning", heads, width)
    full = grouped_query(config)
    kinds = {"full_attention": full, "linear_attention": lightning}
    types = config.layer_types(kinds)
    placed = config.values.get("attn_type_list")
    if isinstance(placed, list):
        if len(placed) != config.layers():
            raise config.error("attn_type_list", f"has {len(placed)} entries")
        types = tuple("full_attention" if kind == 1 else "linear_attention" for kind in placed)
    if not types:
        types = tuple(
            "linear_attention" if i % 2 else "full_attention" for i in range(config.layers())
        )
    experts = experts_beside(config)
    return assemble(config, [(kinds[kind], experts) for kind in types], tied=False)
