"""Llama 4 (text part): three of four layers attend within chunks, experts beside a shared one."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query, routed
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("llama4_text",)


def architecture(config: Config) -> Architecture:
    """Read the text part of a Llama 4 config.

    Norms on queries and keys have no weights.
    """
    chunk = config.integer("attention_chunk_size")
    local = grouped_query(config, kind="chunked", window=chunk)
    whole = grouped_query(config)
    every = config.integer("no_rope_layer_interval", default=4)
    step = config.integer("interleave_moe_layer_step")
    experts = routed(
        config,
        experts="num_local_experts",
        width="intermediate_size",
        shared=config.integer("intermediate_size"),
    )
    layers: list[Layer] = [
        (
            local if (i + 1) % every else whole,
            dense(config, "intermediate_size_mlp") if (i + 1) % step else experts,
        )
        for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False)
