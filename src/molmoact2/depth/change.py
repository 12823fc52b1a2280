"""Which cells of the main image changed since the last call, so that only their depth codes are decoded again.

Facts: architecture.md 7.
"""

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

THRESHOLD = 0.996
"""A cell has changed when the cosine between its old and its new pixels is below this."""
CELL = 32
"""Side of a cell in pixels, after resizing."""


def changed_cells(
    before: UInt8[np.ndarray, "h1 w1 3"], after: UInt8[np.ndarray, "h2 w2 3"], *, side: int
) -> Bool[np.ndarray, " cells"]:
    """Compare two images on a grid of `side` × `side` cells, row by row; True where a cell changed.

    The cosine is taken on raw pixel values, not centred. A cell that is black in either image counts as unchanged.
    """
    return differing(cells_of(before, side), cells_of(after, side))


def differing(
    old: Float32[np.ndarray, "cells pixels"], new: Float32[np.ndarray, "cells pixels"]
) -> Bool[np.ndarray, " cells"]:
    """The same for two images that were cut into cells already: a labeller cuts each frame once."""
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    products = np.einsum("cx,cx->c", old, new)
    return (norms > 0) & (products < THRESHOLD * norms)


def cells_of(image: UInt8[np.ndarray, "h w 3"], side: int) -> np.ndarray:
    """The image resized (bilinear, antialiased) and cut into cells: float32 [side², 32·32·3]."""
    resized = Image.fromarray(image).resize((side * CELL, side * CELL), Image.Resampling.BILINEAR)
    grid = np.asarray(resized, np.float32).reshape(side, CELL, side, CELL, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(side * side, -1)
