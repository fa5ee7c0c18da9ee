"""Grids of tiles that image processors cut an image into, and how they choose one."""

from __future__ import annotations

from fractions import Fraction


def closest_ratio(width: int, height: int, tile: int, most: int) -> tuple[int, int]:
    """Return columns and rows whose ratio is closest to the image's, as InternVL chooses them.

    tile : side [pixels]; most : tiles at most. Of grids of one ratio the larger is taken where the
    image has more than half its pixels.

    >>> closest_ratio(800, 400, tile=448, most=12), closest_ratio(1280, 720, tile=448, most=12)
    ((2, 1), (4, 2))
    """
    aspect = Fraction(width, height)
    best, apart = (1, 1), None
    for columns, rows in _grids(most):
        off = abs(aspect - Fraction(columns, rows))
        larger = 2 * width * height > tile * tile * columns * rows
        if apart is None or off < apart or (off == apart and larger):
            best, apart = (columns, rows), off
    return best


def least_canvas(width: int, height: int, tile: int, most: int) -> tuple[int, int]:
    """Return columns and rows of the canvas that needs least scaling, as Llama 4 chooses them.

    The image is enlarged as little as may be; where no canvas is as large, it is shrunk as little
    as may be. Of canvases of one scale the smallest is taken.

    >>> least_canvas(900, 500, tile=336, most=16), least_canvas(64, 64, tile=336, most=16)
    ((3, 2), (1, 1))
    """

    def scale(grid: tuple[int, int]) -> Fraction:
        return min(Fraction(grid[0] * tile, width), Fraction(grid[1] * tile, height))

    def cost(grid: tuple[int, int]) -> tuple[bool, Fraction, int]:
        by = scale(grid)
        return by < 1, by if by >= 1 else -by, grid[0] * grid[1]

    return min(_grids(most), key=cost)


def _grids(most: int) -> list[tuple[int, int]]:
    """Return all (columns, rows) of up to `most` tiles, fewest tiles first."""
    grids = [(c, r) for c in range(1, most + 1) for r in range(1, most // c + 1)]
    return sorted(grids, key=lambda grid: grid[0] * grid[1])
