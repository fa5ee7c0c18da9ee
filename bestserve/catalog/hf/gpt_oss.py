"""gpt-oss: attention sinks, alternating sliding windows, biases everywhere, experts in mxfp4."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, grouped_query, routed
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("gpt_oss",)


def architecture(config: Config) -> Architecture:
    """Read a gpt-oss config; without `layer_types`, even layers slide."""
    bias = config.flag("attention_bias", True)
    window = config.integer("sliding_window")
    kinds = {
        "sliding_attention": grouped_query(
            config, kind="sliding", window=window, bias=bias, o_bias=bias, sinks=True
        ),
        "full_attention": grouped_query(config, bias=bias, o_bias=bias, sinks=True),
    }
    types = config.layer_types(kinds) or tuple(
        "full_attention" if i % 2 else "sliding_attention" for i in range(config.layers())
    )
    experts = routed(
        config,
        experts="num_local_experts",
        width="intermediate_size",
        bias=True,
        router_bias=True,
    )
    return assemble(config, [(kinds[kind], experts) for kind in types], tied=False)
