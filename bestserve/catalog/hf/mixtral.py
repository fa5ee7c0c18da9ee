"""Mixtral: the Mistral block with routed experts in every layer."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, grouped_query, routed
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("mixtral",)


def architecture(config: Config) -> Architecture:
    """Read a Mixtral config."""
    window = config.integer("sliding_window", default=0, minimum=0)
    attention = grouped_query(config, kind="sliding" if window else "full", window=window)
    experts = routed(config, experts="num_local_experts", width="intermediate_size")
    return assemble(config, [(attention, experts)] * config.layers(), tied=False)
