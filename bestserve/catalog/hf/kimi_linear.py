"""Kimi Linear and K3, Ling/Ring hybrids: delta attention with latent attention in between."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.deepseek import latent
from bestserve.catalog.hf.layers import (
    Layer,
    assemble,
    dense,
    experts_beside,
    linear_heads,
    sparse_layers,
)
from bestserve.models.step.architecture import Architecture, Ffn

MODEL_TYPES = ("kimi_linear", "bailing_hybrid")


def architecture(config: Config) -> Architecture:
    """Read a config whose `linear_attn_config`, `layer_types` or group size places attention."""
    linear = config.part("linear_attn_config")
    if linear.values:
        heads, width = linear.integer("num_heads"), linear.integer("head_dim")
    else:
        heads = config.integer("linear_num_heads", "num_attention_heads")
        width = config.integer("linear_head_dim", default=128)
    full_rank = linear.flag("use_full_rank_gate", False)
    hidden = config.integer("hidden_size")
    proj = heads * width
    # Gates of full rank: Kimi K3's output gate, both of the Ling hybrids.
    whole = 2 if config.text("model_type") == "bailing_hybrid" else int(full_rank)
    taps = (linear if linear.values else config).integer(
        "short_conv_kernel_size", "linear_conv_kernel_dim", default=4
    )
    gates = whole * (hidden * proj - width * (hidden + proj))
    delta = linear_heads("kda", heads, width, conv=taps, extra=gates)
    gate = hidden * config.integer("num_attention_heads") * config.integer("v_head_dim")
    full = latent(config, extra=gate if config.flag("mla_use_output_gate", False) else 0)
    experts = _experts(config)
    layers: list[Layer] = [
        (full if attends else delta, experts if sparse else dense(config))
        for attends, sparse in zip(_attending(config), sparse_layers(config), strict=True)
    ]
    return assemble(config, layers, tied=False)


def _attending(config: Config) -> tuple[bool, ...]:
    count = config.layers()
    placed = config.part("linear_attn_config").values.get("full_attn_layers")
    if placed is not None:
        if not isinstance(placed, list):
            raise config.error("linear_attn_config.full_attn_layers", "is no list of layers")
        return tuple(i + 1 in placed for i in range(count))  # counted from one
    kinds = {"full_attention": True, "linear_attention": False}
    types = config.layer_types(kinds)
    if types:
        return tuple(kinds[kind] for kind in types)
    every = config.integer("layer_group_size", default=4)
    return tuple((i + 1) % every == 0 for i in range(count))


def _experts(config: Config) -> Ffn:
    found = experts_beside(config, router_bias=True)
    routed = config.integer("routed_expert_hidden_size", default=0, minimum=0)
    return Ffn(
        kind="moe",
        intermediate_size=found.intermediate_size,
        num_experts=found.num_experts,
        top_k=found.top_k,
        shared_intermediate_size=found.shared_intermediate_size,
        router_bias=True,
        routed_hidden_size=routed,
    )
