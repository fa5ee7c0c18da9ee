"""Qwen1.5-MoE and Qwen2-MoE: routed experts with a gated shared expert."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query, routed, sparse_steps
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("qwen2_moe",)


def architecture(config: Config) -> Architecture:
    """Read a Qwen2-MoE config."""
    attention = grouped_query(config, bias=config.flag("qkv_bias", True))
    shared = config.integer("shared_expert_intermediate_size", default=0, minimum=0)
    experts = routed(config, experts="num_experts", shared=shared, shared_gate=True)
    layers = [(attention, experts if sparse else dense(config)) for sparse in sparse_steps(config)]
    return assemble(config, layers, tied=False)
