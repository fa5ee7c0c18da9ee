"""ERNIE 4.5 with experts (text models): a dense first layer, shared experts, balanced router."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture, Ffn

MODEL_TYPES = ("ernie4_5_moe",)


def architecture(config: Config) -> Architecture:
    """Read an ERNIE 4.5 MoE config; one expert width for all (the vision models have two)."""
    bias = config.flag("use_bias", False)
    attention = grouped_query(config, bias=bias, o_bias=bias)
    width = config.integer("moe_intermediate_size")
    shared = config.integer("moe_num_shared_experts", default=0, minimum=0)
    experts = Ffn(
        kind="moe",
        intermediate_size=width,
        num_experts=config.integer("moe_num_experts"),
        top_k=config.integer("moe_k"),
        shared_intermediate_size=shared * width,
        bias=bias,
        router_bias=config.flag("moe_use_aux_free", True),
    )
    first = config.integer("moe_layer_start_index", default=0, minimum=0)
    last = config.integer("moe_layer_end_index", default=config.layers() - 1, minimum=-1)
    every = config.integer("moe_layer_interval", default=1)
    end = last if last >= 0 else config.layers() - 1
    layers: list[Layer] = [
        (attention, experts if first <= i <= end and (i + 1) % every == 0 else dense(config))
        for i in range(config.layers())
    ]
    return assemble(config, layers, tied=True)
