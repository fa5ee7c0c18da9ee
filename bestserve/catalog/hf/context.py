"""The longest context that a config allows: its positions, stretched by its own rope scaling.

As engines derive it (vLLM's `_get_and_verify_max_len`): a factor multiplies the positions, YaRN's
those that the model was trained with; Llama 3's scaling and longrope are part of the stated number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bestserve.catalog.hf.config import Config, key_name

POSITIONS = ("max_position_embeddings", "max_sequence_length", "seq_length", "n_positions")
MOST = 10**9
_STATED = ("llama3", "longrope", "su", "mrope", "default", "proportional", "yarn_in_place")
_SCALED = ("linear", "dynamic", "yarn", "ntk", "deepseek_yarn", "ntk-yarn", "dynamic_ntk")
_SECTIONS = ("rope_scaling", "rope_parameters")
_OF_LAYERS = frozenset(
    (
        *("full_attention", "sliding_attention", "chunked_attention", "linear_attention"),
        *("global", "local", "main", "compress"),
    )
)
"""Kinds of layers that may have rotary settings of their own."""
_KEYS = frozenset(
    (
        *("rope_type", "type", "factor", "original_max_position_embeddings", "rope_theta"),
        *("low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "short_factor", "long_factor", "short_mscale", "long_mscale"),
        *("mrope_section", "mrope_interleaved", "interleaved", "truncate", "finetuned", "alpha"),
        *("partial_rotary_factor", "llama_4_scaling_beta", "attn_factor", "extrapolation_factor"),
        *("max_position_embeddings", "apply_yarn_scaling", "rotary_dim", "beta", "scale"),
    )
)


def context_of(config: Config) -> tuple[int, tuple[str, ...]]:
    """Return the longest context [tokens] (0: not stated), and what was not understood."""
    positions = config.integer(*POSITIONS, default=0, minimum=0, maximum=MOST)
    scaling = _scaling(config)
    if scaling is None:
        return positions, ()
    notes = list(_unknown(config))
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind in _STATED:
        return positions, tuple(notes)
    if kind not in _SCALED:
        notes.append(
            f"{scaling.prefix}rope_type {kind[:30]!r} is not understood: at most the "
            f"{positions:,} tokens of max_position_embeddings"
        )
        return positions, tuple(notes)
    if "gemma3" in config.text("model_type", ""):
        return positions, tuple(notes)  # its positions are those after scaling
    factor = scaling.number("factor") if scaling.has("factor") else 1.0
    if factor < 1:
        raise scaling.error("factor", f"is {factor:g}, expected at least 1")
    trained = positions
    if "yarn" in kind:
        trained = scaling.integer(
            "original_max_position_embeddings", default=positions, minimum=0, maximum=MOST
        )
    return min(int(trained * factor), MOST), tuple(notes)


def _unknown(config: Config) -> Iterator[str]:
    for section in _SECTIONS:
        if config.has(section):
            yield from _unknown_in(config.part(section))


def _unknown_in(part: Config) -> Iterator[str]:
    for key, value in part.values.items():
        if isinstance(value, Mapping) and key in _OF_LAYERS:
            yield from _unknown_in(part.part(key))
        elif key not in _KEYS:
            yield f"{part.prefix}{key_name(key)} is not understood"


def _scaling(config: Config) -> Config | None:
    """Return the scaling of the layers that attend to everything, under its old or new key."""
    for key in _SECTIONS:
        if not config.has(key):
            continue
        found = config.part(key)
        for kind in ("full_attention", "global"):
            if isinstance(found.values.get(kind), Mapping):
                return found.part(kind)
        return found if found.values else None
    return None
