"""How a checkpoint's family cuts images into tokens, where its rule is known.

Rules are those of the families' image processors in Hugging Face Transformers 5 (smart_resize of
Qwen-VL; longest edge and row breaks of Pixtral; `mm_tokens_per_image` of Gemma 3;
`vision_soft_tokens_per_image` of Gemma 4; one grid of CLIP's in LLaVA 1.5; tiles of Llama 4), and
of InternVL's own code as vLLM 0.11 has it, whose limits stand in config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bestserve.catalog.hf.config import Config
from bestserve.catalog.hf.tower import Tower, vision_tower
from bestserve.models.step.vision import Vision

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
QWEN_TOKENS = 16384
"""Most tokens of an image: Qwen2-VL's `max_pixels` over 28², Qwen3-VL's over 32²."""
PIXTRAL_SIDE = 1540
"""Longest side that Mistral Small 3 keeps [pixels]."""
GEMMA3_TOKENS, GEMMA3_SIDE = 256, 896
LLAMA4_TILE, LLAMA4_TILES = 336, 16
"""Side [pixels] and number of tiles (`max_patches`) of Llama 4's image processor."""
INTERNVL_TILE, INTERNVL_TILES = 448, 12
"""Those of InternVL 2 to 3.5, where config.json leaves them out."""


def read_vision(values: Mapping[str, Any], where: str) -> Vision | None:
    """Return the tower and its rule, or None: no tower, or a rule that is not known here."""
    config = Config(values, where)
    found = vision_tower(config)
    if found is None:
        return None
    kind = str(values.get("model_type", ""))
    tower, part = found
    patch = part.integer("patch_size", default=14, maximum=1000)
    if kind in QWEN:
        merge = part.integer("spatial_merge_size", default=2, maximum=16)
        return _vision(tower, patch, merge=merge, most_tokens=QWEN_TOKENS, around=2)
    if kind == "mistral3" or part.values.get("model_type") == "pixtral":
        merge = config.integer("spatial_merge_size", default=2 if kind == "mistral3" else 1)
        side = part.integer("image_size", default=PIXTRAL_SIDE)
        return _vision(tower, patch, merge=merge, longest_side=side, row_breaks=True)
    if kind == "gemma3":
        tokens = config.integer("mm_tokens_per_image", default=GEMMA3_TOKENS)
        side = part.integer("image_size", default=GEMMA3_SIDE)
        return _vision(tower, patch, fixed_tokens=tokens, fixed_side=side, around=2)
    if kind == "gemma4":
        merge = part.integer("pooling_kernel_size", default=3, maximum=16)
        most = config.integer("vision_soft_tokens_per_image", default=280)
        return _vision(tower, patch, merge=merge, most_tokens=most, around=2)
    if kind == "llava":
        side = part.integer("image_size", default=336)
        grid = (side // patch) ** 2
        return _vision(tower, patch, fixed_tokens=grid, fixed_side=side)
    if kind == "llama4":
        side = part.integer("image_size", default=LLAMA4_TILE, maximum=10_000)
        return _vision(
            tower,
            patch,
            cut="canvas",
            tile=side,
            tile_tokens=_shrunk(part, "pixel_shuffle_ratio", side // patch),
            most_tiles=LLAMA4_TILES,
            overview=True,
            around=3,
        )
    if kind == "internvl_chat":
        side = part.integer("image_size", default=INTERNVL_TILE, maximum=10_000)
        side = config.integer("force_image_size", default=side, maximum=10_000)
        most = config.integer("max_dynamic_patch", default=INTERNVL_TILES, maximum=100)
        return _vision(
            tower,
            patch,
            cut="ratio",
            tile=side,
            tile_tokens=_shrunk(config, "downsample_ratio", side // patch),
            most_tiles=most if config.flag("dynamic_image_size", False) else 1,
            overview=config.flag("use_thumbnail", False),
            around=2,
        )
    return None


def _shrunk(config: Config, key: str, patches: int) -> int:
    """Return the tokens of a tile of so many patches along a side, which `key` says to merge."""
    share = config.number(key) if key in config.values else 0.5
    if not 0 < share <= 1:
        raise config.error(key, f"is {share:g}, expected a share up to 1")
    return round((patches * share) ** 2)


def _vision(tower: Tower, patch: int, **rule: Any) -> Vision:
    return Vision(
        hidden_size=tower.width,
        num_layers=tower.layers,
        intermediate_size=tower.inner,
        gated=tower.gated,
        patch_size=patch,
        **rule,
    )
