"""Llama 3.2 Vision: Llama with layers that attend to the image instead of the text."""

from __future__ import annotations

import dataclasses

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.layers import Layer, assemble, dense, grouped_query
from bestserve.models.step.architecture import NO_ATTENTION, Architecture
from bestserve.models.step.parameters import attention_parameters

MODEL_TYPES = ("mllama_text_model",)

CROSS = (3, 8, 13, 18, 23, 28, 33, 38)
"""Cross-attention layers where the file names none (Transformers' MllamaTextConfig)."""
_EXTRA_TOKENS = 8  # embedding rows beyond the vocabulary, for images


def architecture(config: Config) -> Architecture:
    """Read the text part; a cross-attention layer counts with its weights and caches no text."""
    attention = grouped_query(config)
    hidden = config.integer("hidden_size")
    across = grouped_query(config, qk_norm=True)
    weights = attention_parameters(across, hidden) + 2  # two learned gates
    blind = dataclasses.replace(NO_ATTENTION, extra_parameters=weights)
    stated = config.values.get("cross_attention_layers")
    if stated is not None and not isinstance(stated, list):
        raise config.error("cross_attention_layers", "is no list of layer numbers")
    chosen = CROSS if stated is None else stated
    layers: list[Layer] = [
        (blind if i in chosen else attention, dense(config)) for i in range(config.layers())
    ]
    return assemble(config, layers, tied=False, extra=_EXTRA_TOKENS * hidden)
