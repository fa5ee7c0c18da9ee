"""What Gemma's models for phones add: an embedding per layer, and layers that borrow the cache."""

from __future__ import annotations

from bestserve.catalog.hf.config import Config

VOCABULARY = 262_144
"""Of the per-layer embedding where the file states none (Transformers' Gemma 3n and 4)."""


def per_layer_parameters(config: Config) -> int:
    """Return the parameters of the per-layer embeddings and their projections [1]; 0 without."""
    width = config.integer("hidden_size_per_layer_input", default=0, minimum=0)
    if not width:
        return 0
    layers, hidden = config.layers(), config.integer("hidden_size")
    vocabulary = config.integer("vocab_size_per_layer_input", default=VOCABULARY)
    packed = (vocabulary + hidden) * layers * width + width
    return packed + layers * (2 * hidden * width + hidden)


def borrowing(config: Config) -> tuple[bool, ...]:
    """Return for each layer whether it reads the cache of an earlier one: the last so many do."""
    layers = config.layers()
    last = config.integer("num_kv_shared_layers", default=0, minimum=0, maximum=layers)
    return (False,) * (layers - last) + (True,) * last
