"""Weights of a multimodal model's towers, estimated from their sections' usual keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestserve.catalog.hf.config import Config
from bestserve.errors import DataError

TOWERS = ("vision_config", "audio_config", "visual", "vision_tower_config")
_DEEPEST = 4
_CLIP = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
_SIGLIP = {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304}
# What Transformers fills in for towers whose sections leave their sizes out.
_DEFAULTS: dict[str, dict[str, int]] = {
    "clip_vision_model": _CLIP,
    "siglip_vision_model": _SIGLIP,
    "pixtral": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
    "qwen2_5_vl": {"hidden_size": 1280, "num_hidden_layers": 32, "intermediate_size": 3420},
    "qwen2_vl": {"embed_dim": 1280, "num_hidden_layers": 32},
    "llama4_vision_model": {
        "hidden_size": 1408,
        "num_hidden_layers": 34,
        "intermediate_size": 5632,
    },
}


def tower_parameters(values: Mapping[str, Any], hidden: int, where: str) -> int:
    """Return the parameters of all towers and of their projection to `hidden`; 0 without any.

    Per layer four square matrices and the feed-forward part; patches and positions are left out.
    """
    return sum(_tower(part, hidden) for part in _sections(Config(values, where), _DEEPEST))


def _sections(config: Config, depth: int) -> list[Config]:
    found: list[Config] = []
    for key, value in config.values.items():
        if not isinstance(value, Mapping) or not value:
            continue
        if key in TOWERS:
            found.append(config.part(key))
        elif depth and key.endswith("_config") and not key.startswith(("talker", "code2wav")):
            found += _sections(config.part(key), depth - 1)
    return found


def _tower(part: Config, hidden: int) -> int:
    kind = part.values.get("model_type")
    defaults = _DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
    own = Config({**defaults, **part.values}, part.where, part.prefix)
    try:
        width = own.integer(
            "embed_dim", "vt_hidden_size", "hidden_size", "d_model", "width", default=0, minimum=0
        )
        layers = own.integer(
            *("depth", "vt_num_hidden_layers", "num_hidden_layers", "encoder_layers", "layers"),
            default=0,
            minimum=0,
        )
        inner = own.integer(
            "vt_intermediate_size",
            "intermediate_size",
            "encoder_ffn_dim",
            default=4 * width,
            minimum=0,
        )
        out = own.integer("out_hidden_size", default=hidden)
    except DataError:
        return 0  # a tower of its own making; the note says that it is not counted
    gated = kind in ("qwen2_5_vl", "pixtral", "glm4v", "gemma4_vision")
    layer = 4 * width * width + (3 if gated else 2) * width * inner
    merged = own.values.get("spatial_merge_size")
    merge = merged * merged if isinstance(merged, int) and 0 < merged < 10 else 1
    return layers * layer + merge * width * (merge * width + out) if layers else 0
