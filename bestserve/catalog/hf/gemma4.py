"""Gemma 4: full layers with wider, fewer heads whose values are their keys; experts beside a
dense part in the 26B model; the models for phones borrow caches and embed every layer."""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.catalog.hf.per_layer_inputs import borrowing, per_layer_parameters
from bestserve.models.step.architecture import Architecture, Attention, Ffn

MODEL_TYPES = ("gemma4_text", "gemma4_unified_text")


def architecture(config: Config) -> Architecture:
    """Read the text part of a Gemma 4 config."""
    window = config.integer("sliding_window")
    sliding = grouped_query(config, kind="sliding", window=window, qk_norm=True)
    kinds = {"sliding_attention": sliding, "full_attention": _full(config)}
    types = config.layer_types(kinds)
    if not types:
        raise config.error("layer_types", "is missing; is the file complete?")
    experts = config.flag("enable_moe_block", False)
    ffn = _experts(config) if experts else dense(config)
    # With experts: three more norms, the router's input scale and its scale per expert.
    norms = 8 if experts else 4
    extra = config.layers() + per_layer_parameters(config)  # one output scale a layer
    if experts:
        extra += config.layers() * config.integer("num_experts")
    wide = ffn
    if config.flag("use_double_wide_mlp", False):
        wide = dataclasses.replace(ffn, intermediate_size=2 * ffn.intermediate_size)
    layers: list[Layer] = [
        (dataclasses.replace(kinds[kind], borrows_kv=borrows), wide if borrows else ffn)
        for kind, borrows in zip(types, borrowing(config), strict=True)
    ]
    return assemble(config, layers, tied=True, norms_per_layer=norms, extra=extra)


def _full(config: Config) -> Attention:
    shared = config.flag("attention_k_eq_v", False)
    kv_heads = config.integer("num_key_value_heads")
    return Attention(
        kind="full",
        num_heads=config.integer("num_attention_heads"),
        num_kv_heads=config.integer("num_global_key_value_heads", default=kv_heads)
        if shared
        else kv_heads,
        head_dim=config.integer("global_head_dim", default=512),
        qk_norm=True,
        shared_kv=shared,
    )


def _experts(config: Config) -> Ffn:
    return Ffn(
        kind="moe",
        intermediate_size=config.integer("moe_intermediate_size", "expert_intermediate_size"),
        num_experts=config.integer("num_experts"),
        top_k=config.integer("top_k_experts"),
        shared_intermediate_size=config.integer("intermediate_size"),
    )
