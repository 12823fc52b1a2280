"""Pictures of cells, codes and depth maps. Needs numpy and PIL only.

A depth map of `side` x `side` cells covers its whole image, whatever the image's shape: a cell is `h / side` by
`w / side` pixels, row by row.
"""

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from molmoact2.types import DepthReasoning, Image

OUTLINE = ((1, 30), (3, 255), (4, 30))
"""The line around renewed cells, from outside to inside: up to how many pixels from their edge, and which grey. White
between two dark lines reads on any photograph and on any colour map."""
GRID_OPACITY = 0.22
"""Of the white lines between two renewed cells."""
HEAT = np.array([(247, 246, 243), (253, 208, 162), (241, 105, 19), (166, 54, 3), (60, 16, 2)], np.float32)
"""From no error to a large one."""
CODES_SIZE = (320, 320)
"""(height, width) of codes drawn as colours."""
GOLDEN_RATIO = 0.6180339887


def resized(image: Image, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The image as uint8 of `size` (height, width); floating point in [0, 1] is rounded to it."""
    whole = image if image.dtype == np.uint8 else np.round(np.asarray(image, np.float64) * 255).astype(np.uint8)
    return np.asarray(PillowImage.fromarray(whole).resize((size[1], size[0]), PillowImage.Resampling.BICUBIC))


def outlined(picture: NDArray[np.uint8], changed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture [h, w, 3] with a line around the cells [side * side] that changed, and a grid within."""
    inside = spread(changed, picture.shape[:2])
    lines = inside & grid(len(changed), inside.shape)
    drawn = np.where(lines[..., None], np.round(picture + GRID_OPACITY * (255.0 - picture)).astype(np.uint8), picture)
    rest = inside
    for distance, grey in OUTLINE:
        inner = eroded(inside, distance)
        drawn[rest & ~inner] = grey
        rest = inner
    return drawn


def spread(cells: NDArray, size: tuple[int, ...]) -> NDArray:
    """Values of cells [side * side] as a map of `size` (height, width), each cell's value everywhere in the cell."""
    rows, columns = cell_indices(len(cells), size)
    return cells.reshape(int(len(cells) ** 0.5), -1)[rows[:, None], columns]


def cell_indices(num_cells: int, size: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of cells that the middle of each row of pixels lies in, and the same for columns."""
    side = int(num_cells**0.5)
    rows, columns = ((2 * np.arange(pixels) + 1) * side // (2 * pixels) for pixels in size)
    return rows, columns


def grid(num_cells: int, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """True on the first row and on the first column of pixels of every cell."""
    rows, columns = (np.diff(index, prepend=-1) > 0 for index in cell_indices(num_cells, size))
    return rows[:, None] | columns


def eroded(inside: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Where everything within `distance` pixels, corners included, is inside; beyond the edge is outside."""
    for axis in (0, 1):
        padding = [(distance, distance) if other == axis else (0, 0) for other in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(inside, padding), 2 * distance + 1, axis=axis)
        inside = np.all(windows, axis=-1)
    return inside


def depth_picture(thought: DepthReasoning) -> NDArray[np.uint8]:
    """The map that a policy thought of; without a decoder, a colour for each code."""
    return code_colours(thought.codes, CODES_SIZE) if thought.preview is None else thought.preview


def code_colours(codes: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Codes [side * side] as cells of colour [height, width, 3]: equal codes have one colour, whatever they mean."""
    shades = [colorsys.hsv_to_rgb(code * GOLDEN_RATIO % 1, 0.45, 0.85) for code in codes.tolist()]
    table = np.round(255 * np.array(shades)).astype(np.uint8)
    return table[spread(np.arange(len(codes)), size)]


def error_colours(error: NDArray[np.float32], *, largest: float) -> NDArray[np.uint8]:
    """Errors [h, w] from 0 (white) to `largest` (dark), beyond it as dark, as a picture [h, w, 3]."""
    place = np.clip(np.abs(error) / largest, 0, 1) * (len(HEAT) - 1)
    low = np.minimum(place.astype(int), len(HEAT) - 2)
    share = (place - low)[..., None]
    return np.round(HEAT[low] * (1 - share) + HEAT[low + 1] * share).astype(np.uint8)
