"""Mixtral: the Mistral block with routed experts in every layer."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, grouped_query, routed, windows
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("mixtral",)


def architecture(config: Config) -> Architecture:
    """Read a Mixtral config."""
    experts = routed(config, experts="num_local_experts", width="intermediate_size")
    layers = [
        (grouped_query(config, kind="sliding" if window else "full", window=window), experts)
        for window in windows(config)
    ]
    return assemble(config, layers, tied=False)
