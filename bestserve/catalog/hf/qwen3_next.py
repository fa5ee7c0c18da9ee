"""Qwen3-Next and Qwen3.5: gated-delta layers, every fourth layer attends; dense or experts."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import (
    assemble,
    dense,
    grouped_query,
    routed,
    sparse_steps,
)
from bestserve.models.step.architecture import Architecture, Attention

MODEL_TYPES = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")


def architecture(config: Config) -> Architecture:
    """Read a Qwen3-Next or Qwen3.5 config; `layer_types` or an interval places full attention."""
    full = grouped_query(config, qk_norm=True, output_gate=config.flag("attn_output_gate", True))
    kinds = {"full_attention": full, "linear_attention": _gated_delta(config)}
    types = config.layer_types(kinds)
    if not types:
        every = config.integer("full_attention_interval")
        types = tuple(
            "full_attention" if (i + 1) % every == 0 else "linear_attention"
            for i in range(config.layers())
        )
    if config.integer("num_experts", default=0, minimum=0) == 0:
        layers = [(kinds[kind], dense(config)) for kind in types]
    else:
        shared = config.integer("shared_expert_intermediate_size", default=0, minimum=0)
        experts = routed(config, experts="num_experts", shared=shared, shared_gate=True)
        layers = [
            (kinds[kind], experts if sparse else dense(config))
            for kind, sparse in zip(types, sparse_steps(config), strict=True)
        ]
    return assemble(config, layers, tied=False)


def _gated_delta(config: Config) -> Attention:
    return Attention(
        kind="linear",
        num_heads=config.integer("linear_num_value_heads"),
        num_kv_heads=config.integer("linear_num_key_heads"),
        head_dim=config.integer("linear_key_head_dim"),
        linear_key_heads=config.integer("linear_num_key_heads"),
        linear_value_heads=config.integer("linear_num_value_heads"),
        linear_key_dim=config.integer("linear_key_head_dim"),
        linear_value_dim=config.integer("linear_value_head_dim"),
        linear_conv=config.integer("linear_conv_kernel_dim"),
    )
