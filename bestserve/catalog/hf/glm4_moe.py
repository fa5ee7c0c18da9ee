"""GLM-4.5 to 4.7: grouped queries with biases, dense first layers, experts with a shared one."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query, routed
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("glm4_moe",)


def architecture(config: Config) -> Architecture:
    """Read a GLM-4 MoE config."""
    attention = grouped_query(
        config,
        bias=config.flag("attention_bias", False),
        qk_norm=config.flag("use_qk_norm", False),
    )
    dense_layers = config.integer("first_k_dense_replace", minimum=0)
    shared = config.integer("n_shared_experts", default=0, minimum=0)
    experts = routed(
        config,
        experts="n_routed_experts",
        shared=shared * config.integer("moe_intermediate_size"),
        router_bias=True,
    )
    layers = [
        (attention, dense(config) if i < dense_layers else experts) for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False)
