"""Weights of a multimodal model's towers, estimated from their sections' usual keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    return sum(_parameters(part, hidden) for part in _sections(Config(values, where), _DEEPEST))


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


@dataclass(frozen=True)
class Tower:
    """Sizes of a tower: width, layers, width of the feed-forward part, whether that is gated."""

    width: int
    layers: int
    inner: int
    gated: bool


def vision_tower(config: Config) -> tuple[Tower, Config] | None:
    """Return a model's vision tower and the section that describes it; None without one."""
    for part in _sections(config, _DEEPEST):
        tower = None if part.prefix.endswith("audio_config.") else _sizes(part)
        if tower is not None:
            return tower, part
    return None


def _sizes(part: Config) -> Tower | None:
    """Return a section's sizes; None for a tower of its own making."""
    kind = part.values.get("model_type")
    defaults = _DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}
    own = Config({**defaults, **part.values}, part.where, part.prefix)
    widths = ("embed_dim", "vt_hidden_size", "hidden_size", "d_model", "width")
    counts = ("depth", "vt_num_hidden_layers", "num_hidden_layers", "encoder_layers", "layers")
    inners = ("vt_intermediate_size", "intermediate_size", "encoder_ffn_dim")
    try:
        width = own.integer(*widths, default=0, minimum=0)
        layers = own.integer(*counts, default=0, minimum=0)
        inner = own.integer(*inners, default=4 * width, minimum=0)
    except DataError:
        return None
    gated = kind in ("qwen2_5_vl", "pixtral", "glm4v", "gemma4_vision")
    return Tower(width, layers, inner, gated) if width and layers else None


def _parameters(part: Config, hidden: int) -> int:
    """Return a tower's parameters; 0 for one of its own making, which a note says."""
    tower = _sizes(part)
    if tower is None:
        return 0
    try:
        out = part.integer("out_hidden_size", default=hidden)
    except DataError:
        return 0
    width, layers = tower.width, tower.layers
    layer = 4 * width * width + (3 if tower.gated else 2) * width * tower.inner
    merged = part.values.get("spatial_merge_size")
    merge = merged * merged if isinstance(merged, int) and 0 < merged < 10 else 1
    return layers * layer + merge * width * (merge * width + out)
