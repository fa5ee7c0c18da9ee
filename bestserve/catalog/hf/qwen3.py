"""Qwen3, dense and with experts, and the text part of Qwen3-VL: norms on queries and keys."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query, routed, sparse_steps
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = (
    "qwen3",
    "qwen3_moe",
    "qwen3_vl_text",
    "qwen3_vl_moe_text",
    "qwen3_omni_moe_text",
)


def architecture(config: Config) -> Architecture:
    """Read a Qwen3 config; `model_type` says whether it has experts."""
    if config.flag("use_sliding_window", False):
        raise config.error("use_sliding_window", "is true, which no published Qwen3 model sets")
    bias = config.flag("attention_bias", False)
    attention = grouped_query(config, bias=bias, o_bias=bias, qk_norm=True)
    if "moe" not in config.text("model_type"):
        return assemble(config, [(attention, dense(config))] * config.layers(), tied=False)
    experts = routed(config, experts="num_experts")
    layers = [(attention, experts if sparse else dense(config)) for sparse in sparse_steps(config)]
    return assemble(config, layers, tied=False)
