"""Mistral 7B to Small, Nemo and Ministral 3: the Llama block without biases."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import assemble, dense, grouped_query
from bestserve.models.step.architecture import Architecture

MODEL_TYPES = ("mistral", "ministral3")


def architecture(config: Config) -> Architecture:
    """Read a Mistral config; `sliding_window` (7B v0.1) applies to every layer."""
    window = config.integer("sliding_window", default=0, minimum=0)
    attention = grouped_query(config, kind="sliding" if window else "full", window=window)
    return assemble(config, [(attention, dense(config))] * config.layers(), tied=False)
