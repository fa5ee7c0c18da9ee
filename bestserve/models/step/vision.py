"""Images in prompts: the tokens that one becomes, by the rule of the family's image processor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bestserve.models.step.tiles import closest_ratio, least_canvas


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """A vision tower and how it cuts an image.

    hidden_size, num_layers, intermediate_size, gated : the tower's sizes
    patch_size : side of a patch [pixels]; merge : patches along the side of a token
    most_tokens : larger images are shrunk to this many tokens; 0: never
    longest_side : larger images are shrunk to this side [pixels]; 0: never
    fixed_tokens : tokens of an image of any size, which is brought to `fixed_side` [pixels]; 0:
        tokens follow the size
    around : tokens that begin and end an image; row_breaks : whether one more ends each row
    cut : how a grid of tiles is chosen, "ratio" or "canvas" (see `tiles`); None: not cut
    tile : side of a tile [pixels]; tile_tokens : that each becomes; most_tiles : of a grid
    overview : whether the whole image is one tile more, where it is cut into several
    """

    hidden_size: int
    num_layers: int
    intermediate_size: int
    gated: bool = False
    patch_size: int = 14
    merge: int = 1
    most_tokens: int = 0
    longest_side: int = 0
    fixed_tokens: int = 0
    fixed_side: int = 0
    around: int = 0
    row_breaks: bool = False
    cut: Literal["ratio", "canvas"] | None = None
    tile: int = 0
    tile_tokens: int = 0
    most_tiles: int = 1
    overview: bool = False

    def pieces(self, width: int, height: int) -> int:
        """Return the parts of one image [pixels] that the tower sees each by itself."""
        inside = self._tiles(width, height)
        return inside + (self.overview and inside > 1)

    def _tiles(self, width: int, height: int) -> int:
        """Return the tiles of the grid, without the overview."""
        if self.cut is None:
            return 1
        choose = closest_ratio if self.cut == "ratio" else least_canvas
        columns, rows = choose(width, height, self.tile, self.most_tiles)
        return columns * rows

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return the tokens along an image's width and height [pixels], of sizes that vary."""
        side = self.patch_size * self.merge
        if self.longest_side and max(width, height) > self.longest_side:
            ratio = max(width, height) / self.longest_side
            width, height = math.floor(width / ratio), math.floor(height / ratio)
        if self.row_breaks:
            return math.ceil(width / side), math.ceil(height / side)
        columns, rows = max(1, round(width / side)), max(1, round(height / side))
        if self.most_tokens and columns * rows > self.most_tokens:
            ratio = math.sqrt(width * height / self.most_tokens) / side
            columns = max(1, math.floor(width / ratio / side))
            rows = max(1, math.floor(height / ratio / side))
        return columns, rows

    def tokens(self, width: int, height: int) -> int:
        """Return the prompt tokens of one image of these pixels."""
        if self.cut is not None:
            inside = self._tiles(width, height)
            # a token ends each tile of a canvas that has several
            ends = inside if self.cut == "canvas" and inside > 1 else 0
            return self.pieces(width, height) * self.tile_tokens + ends + self.around
        if self.fixed_tokens:
            return self.fixed_tokens + self.around
        columns, rows = self.grid(width, height)
        return columns * rows + (rows if self.row_breaks else 0) + self.around

    def patches(self, width: int, height: int) -> int:
        """Return the patches that the tower sees of one image of these pixels."""
        if self.cut is not None:
            return self.pieces(width, height) * (self.tile // self.patch_size) ** 2
        if self.fixed_tokens:
            return (self.fixed_side // self.patch_size) ** 2
        columns, rows = self.grid(width, height)
        return columns * rows * self.merge**2
