"""MiniMax M3: grouped queries, most layers with an indexer that picks blocks of keys; experts."""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import (
    Layer,
    assemble,
    experts_beside,
    grouped_query,
    sparse_layers,
)
from bestserve.models.step.architecture import Architecture, Ffn

MODEL_TYPES = ("minimax_m3", "minimax_m3_vl_text")


def architecture(config: Config) -> Architecture:
    """Read a MiniMax M3 config. The indexer's time and its keys in the cache are not modelled."""
    full = grouped_query(config, qk_norm=True)
    own = config.part("sparse_attention_config")
    heads = own.integer(
        "sparse_num_index_heads", default=config.integer("index_n_heads", default=4)
    )
    dim = own.integer("sparse_index_dim", default=config.integer("index_head_dim", default=128))
    index = config.integer("hidden_size") * dim * (heads + 1)
    indexed = dataclasses.replace(full, extra_parameters=index)
    count = config.layers()
    sparse_attention = own.values.get("sparse_attention_freq")
    picks = sparse_attention if isinstance(sparse_attention, list) else [1] * count
    if len(picks) < count:
        raise own.error("sparse_attention_freq", f"has {len(picks)} entries for {count} layers")
    experts = experts_beside(config, router_bias=config.flag("use_routing_bias", True))
    width = config.integer("dense_intermediate_size", "intermediate_size")
    plain = Ffn(kind="dense", intermediate_size=width)
    layers: list[Layer] = [
        (indexed if pick else full, experts if sparse else plain)
        for pick, sparse in zip(picks[:count], sparse_layers(config), strict=True)
    ]
    return assemble(config, layers, tied=False)
