"""Gemma 4: full layers with wider, fewer heads whose values are their keys; experts beside a
dense part in the 26B model."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture, Attention, Ffn

MODEL_TYPES = ("gemma4_text",)


def architecture(config: Config) -> Architecture:
    """Read the text part of a Gemma 4 config."""
    for key in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        if config.integer(key, default=0, minimum=0):
            raise config.error(key, "is not 0: Gemma 4 models for phones are not supported")
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
    extra = config.layers()  # one output scale a layer
    if experts:
        extra += config.layers() * config.integer("num_experts")
    layers = [(kinds[kind], ffn) for kind in types]
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
        head_dim=config.integer("global_head_dim", "head_dim"),
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
