"""DeepSeek V2 to V3.2 and their relatives (Kimi K2, GLM-4.7-Flash, GLM-5): latent attention.

V3.2 and GLM-5 add an indexer that picks `index_topk` keys per query; layers whose
`indexer_types` entry is "shared" reuse the picks of the layer before.
"""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, routed
from bestserve.models.step.architecture import Architecture, Attention

MODEL_TYPES = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "kimi_k2",
    "glm4_moe_lite",
    "glm_moe_dsa",
)

# The routers of V2 are plain; later ones carry a bias that balances the load.
_PLAIN_ROUTER = ("deepseek_v2",)


def architecture(config: Config) -> Architecture:
    """Read a config with latent attention; the first layers are dense."""
    attention = _latent(config)
    dense_layers = config.integer("first_k_dense_replace", minimum=0)
    every = config.integer("moe_layer_freq", default=1)
    shared = config.integer("n_shared_experts", default=0, minimum=0)
    experts = routed(
        config,
        experts="n_routed_experts",
        shared=shared * config.integer("moe_intermediate_size"),
        router_bias=config.text("model_type") not in _PLAIN_ROUTER,
    )
    reusing = dataclasses.replace(attention, index_heads=0, index_dim=0)
    indexers = config.strings("indexer_types") or ("full",) * config.layers()
    if len(indexers) != config.layers():
        raise config.error("indexer_types", f"has {len(indexers)} entries")
    layers: list[Layer] = [
        (
            reusing if indexer == "shared" else attention,
            experts if i >= dense_layers and i % every == 0 else dense(config),
        )
        for i, indexer in enumerate(indexers)
    ]
    return assemble(config, layers, tied=False)


def _latent(config: Config) -> Attention:
    heads = config.integer("num_attention_heads")
    nope = config.integer("qk_nope_head_dim")
    rope = config.integer("qk_rope_head_dim")
    bias = config.flag("attention_bias", False)
    indexed = config.has("index_topk")
    return Attention(
        kind="mla",
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=nope + rope,
        v_head_dim=config.integer("v_head_dim"),
        q_lora_rank=config.integer("q_lora_rank", default=0, minimum=0),
        kv_lora_rank=config.integer("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        bias=bias,
        o_bias=bias,
        index_heads=config.integer("index_n_heads") if indexed else 0,
        index_dim=config.integer("index_head_dim") if indexed else 0,
        index_topk=config.integer("index_topk") if indexed else 0,
    )
