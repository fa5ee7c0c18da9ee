"""DBRX: its own names for everything, sixteen experts in every layer."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble
from bestserve.models.step.architecture import Architecture, Attention, Ffn

MODEL_TYPES = ("dbrx",)


def architecture(config: Config) -> Architecture:
    """Read a DBRX config with its nested `attn_config` and `ffn_config`."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    attn, ffn = config.part("attn_config"), config.part("ffn_config")
    if hidden % heads:
        raise config.error("n_heads", f"is {heads}, which does not divide {hidden}")
    attention = Attention(
        kind="full",
        num_heads=heads,
        num_kv_heads=attn.integer("kv_n_heads", default=1),
        head_dim=hidden // heads,
    )
    number = ffn.integer("moe_num_experts")
    experts = Ffn(
        kind="moe",
        intermediate_size=ffn.integer("ffn_hidden_size"),
        num_experts=number,
        top_k=ffn.integer("moe_top_k", maximum=number),
    )
    return assemble(config, [(attention, experts)] * config.layers(), tied=False)
