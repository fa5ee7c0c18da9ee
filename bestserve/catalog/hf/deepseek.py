"""DeepSeek V2 to V3.2 and relatives (Kimi K2, GLM-5, Mistral 4, MiniCPM 3): latent attention.

V3.2 and GLM-5 add an indexer that picks `index_topk` keys per query; layers whose
`indexer_types` entry is "shared" reuse the picks of the layer before.
"""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import EXPERTS, Layer, assemble, dense, routed, sparse_layers
from bestserve.models.step.architecture import Architecture, Attention

MODEL_TYPES = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "kimi_k2",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "mistral4",
    "mistral_large4_text",
    "axk1",
    "sarvam_mla",
    "minicpm3",
    "youtu",
)

# The routers of V2 are plain; later ones carry a bias that balances the load.
_PLAIN_ROUTER = ("deepseek_v2",)


def architecture(config: Config) -> Architecture:
    """Read a config with latent attention; the first layers are dense."""
    attention = latent(config)
    if not any(config.has(key) for key in EXPERTS):
        return assemble(config, [(attention, dense(config))] * config.layers(), tied=True)
    sparse = sparse_layers(config)
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
            experts if has_experts else dense(config),
        )
        for has_experts, indexer in zip(sparse, indexers, strict=True)
    ]
    return assemble(config, layers, tied=False)


def latent(config: Config, *, extra: int = 0) -> Attention:
    """Return latent attention; `extra` parameters that the usual keys do not explain."""
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
        extra_parameters=extra,
    )
