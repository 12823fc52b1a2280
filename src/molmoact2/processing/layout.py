"""Where the patches of an image go in the text: which image token pools which patches.

With crops, neighbouring crops overlap; every patch of the whole is read from exactly one of them:

    crop 0   0 1 2 .            margins (1, 1), grid 4, window 2: crop j begins at patch 2j,
    crop 1       . 3 4 .        the dots are its margins, which a neighbour provides
    crop 2           . 5 6 7

Facts: architecture.md 3.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from molmoact2.processing.settings import ImageSettings
from molmoact2.tokens.vocabulary import ImageTokens


@dataclass(frozen=True, kw_only=True)
class ImageBlock:
    """What stands in the text for one image."""

    token_ids: Int[np.ndarray, " n"]
    pooling: Int[np.ndarray, "i w"]
    """For each `<im_patch>` token in order the patches it pools, counted over all crops of this image; -1 is none."""


@lru_cache
def view_block(settings: ImageSettings, tokens: ImageTokens) -> ImageBlock:
    """The block of an image that is one view."""
    return block_of(view_windows(settings), tokens, settings.view_columns, tokens.start, tokens.end)


@lru_cache
def frame_block(settings: ImageSettings, tokens: ImageTokens) -> ImageBlock:
    """The block of one frame of a video."""
    return block_of(view_windows(settings), tokens, settings.view_columns, tokens.frame_start, tokens.frame_end)


@lru_cache(maxsize=1024)
def crops_block(settings: ImageSettings, tokens: ImageTokens, tiling: tuple[int, int]) -> ImageBlock:
    """The block of an image that is one view and a tiling of (rows, columns) crops."""
    view_start = tokens.low_res_start if settings.view_start else tokens.start
    view = block_of(view_windows(settings), tokens, settings.view_columns, view_start, tokens.end)
    windows = pool(tiled_patches(settings, tiling), settings.pooling)
    crops = block_of(windows, tokens, settings.columns, tokens.start, tokens.end)
    return ImageBlock(
        token_ids=np.concatenate((view.token_ids, crops.token_ids)),
        pooling=np.concatenate((view.pooling, crops.pooling)),
    )


def block_of(
    windows: Int[np.ndarray, "rows columns w"], tokens: ImageTokens, has_columns: bool, start: int, end: int
) -> ImageBlock:
    """Lay out one grid of pooling windows row by row."""
    rows, columns, size = windows.shape
    cells = np.full((rows, columns + has_columns), tokens.patch)
    cells[:, columns:] = tokens.column
    return ImageBlock(
        token_ids=np.concatenate(([start], cells.ravel(), [end])), pooling=windows.reshape(rows * columns, size)
    )


def view_windows(settings: ImageSettings) -> Int[np.ndarray, "rows columns w"]:
    """The pooling windows of a single view."""
    rows, columns = settings.grid
    return pool(np.arange(rows * columns).reshape(rows, columns), settings.pooling)


def tiled_patches(settings: ImageSettings, tiling: tuple[int, int]) -> Int[np.ndarray, "rows columns"]:
    """The whole image's patches as indices into the view (first) and the crops, row by row."""
    rows, columns = settings.grid
    crop_row, row = providers(settings, axis=0, crops=tiling[0])
    crop_column, column = providers(settings, axis=1, crops=tiling[1])
    crop = 1 + crop_row[:, None] * tiling[1] + crop_column
    return crop * (rows * columns) + row[:, None] * columns + column


def providers(
    settings: ImageSettings, *, axis: int, crops: int
) -> tuple[Int[np.ndarray, " patches"], Int[np.ndarray, " patches"]]:
    """For each patch along one axis: the crop that provides it, and its place in that crop."""
    window, (low, _) = settings.window[axis], settings.margins
    patches = np.arange(crops * window + sum(settings.margins))
    crop = np.clip((patches - low) // window, 0, crops - 1)
    return crop, patches - crop * window


def pool(patches: Int[np.ndarray, "h w"], pooling: tuple[int, int]) -> Int[np.ndarray, "rows columns x"]:
    """Group patches into windows; an uneven grid is filled with -1, half of it (rounded down) before."""
    rows, columns = pooling
    missing = (-patches.shape[0] % rows, -patches.shape[1] % columns)
    padded = np.pad(patches, [(n // 2, n - n // 2) for n in missing], constant_values=-1)
    grid = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    return grid.transpose(0, 2, 1, 3).reshape(grid.shape[0], grid.shape[2], rows * columns)
