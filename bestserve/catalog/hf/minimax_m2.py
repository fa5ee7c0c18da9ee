"""MiniMax M2 to M2.7: norms over all query and key heads, experts in every layer, none shared."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, grouped_query, routed
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("minimax_m2",)


def architecture(config: Config) -> Architecture:
    """Read a MiniMax M2 config."""
    if config.integer("shared_intermediate_size", default=0, minimum=0):
        raise config.error("shared_intermediate_size", "is not 0, which no published M2 model sets")
    attention = grouped_query(
        config,
        qk_norm=config.flag("use_qk_norm", True),
        qk_norm_heads=config.text("qk_norm_type", "per_layer") == "per_layer",
    )
    experts = routed(
        config,
        experts="num_local_experts",
        width="intermediate_size",
        router_bias=config.flag("use_routing_bias", True),
    )
    return assemble(config, [(attention, experts)] * config.layers(), tied=False)
