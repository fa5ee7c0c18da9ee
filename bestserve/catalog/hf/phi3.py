"""Phi-3 and Phi-4: the Llama block with fused projections and no biases."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("phi3",)


def architecture(config: Config) -> Architecture:
    """Read a Phi-3 config."""
    window = config.integer("sliding_window", default=0, minimum=0)
    attention = grouped_query(config, kind="sliding" if window else "full", window=window)
    return assemble(config, [(attention, dense(config))] * config.layers(), tied=False)
