"""From camera images to the patches that the network reads.

    image uint8 [h, w, 3]  ->  crops uint8 [c, height, width, 3]  ->  patches float32 [c, p, patch_size² · 3]

Resizing is bilinear without antialiasing and rounds back to uint8, as in training. Facts: architecture.md 3.
"""

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch.nn.functional import interpolate

from molmoact2.processing.settings import ImageSettings


def resize(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Scale to (height, width), bilinear, not antialiased, proportions not kept; the right size stays as it is."""
    if image.shape[:2] == size:
        return image
    # Three grey images: for one image of three channels torch rounds otherwise on one thread than on several.
    channels = np.ascontiguousarray(image.transpose(2, 0, 1)[:, None], np.float32)
    scaled = interpolate(torch.from_numpy(channels), size, mode="bilinear", align_corners=False)
    return scaled.round_().to(torch.uint8)[:, 0].permute(1, 2, 0).numpy()


def view(image: UInt8[np.ndarray, "h w 3"], settings: ImageSettings) -> UInt8[np.ndarray, "1 height width 3"]:
    """The whole image as one crop."""
    return resize(image, settings.size)[None]


def view_and_crops(
    image: UInt8[np.ndarray, "h w 3"], settings: ImageSettings, tiling: tuple[int, int]
) -> UInt8[np.ndarray, "c height width 3"]:
    """The whole image as one crop, then a tiling of (rows, columns) overlapping crops, row by row."""
    height, width = settings.size
    margin = sum(settings.margins) * settings.patch_size
    down, right = (window * settings.patch_size for window in settings.window)
    whole = resize(image, (tiling[0] * down + margin, tiling[1] * right + margin))
    windows = np.lib.stride_tricks.sliding_window_view(whole, (height, width), axis=(0, 1))[::down, ::right]
    crops = windows.transpose(0, 1, 3, 4, 2).reshape(tiling[0] * tiling[1], height, width, 3)
    return np.concatenate((view(image, settings), crops))


def choose_tiling(height: int, width: int, settings: ImageSettings) -> tuple[int, int]:
    """The (rows, columns) of at most `max_crops` crops that fit an image best.

    Best is the least enlargement that covers the image, else the least reduction, both measured without the margins;
    among equals the tiling with fewer crops, then with fewer rows.
    """
    margin = sum(settings.margins) * settings.patch_size
    inner = np.maximum([height - margin, width - margin], 1)
    tilings = tilings_up_to(settings.max_crops)
    scales = (tilings * settings.window * settings.patch_size / inner).min(axis=1)
    enlarging = scales >= 1
    best = np.where(enlarging, scales, np.inf).argmin() if enlarging.any() else scales.argmax()
    return int(tilings[best, 0]), int(tilings[best, 1])


def tilings_up_to(max_crops: int) -> np.ndarray:
    """All (rows, columns) of at most `max_crops` crops, by their number, then by their rows: [tilings, 2]."""
    rows, columns = np.divmod(np.arange((max_crops + 1) ** 2), max_crops + 1)
    area = rows * columns
    order = np.lexsort((rows, area))
    return np.stack((rows, columns), axis=1)[order[(area[order] >= 1) & (area[order] <= max_crops)]]


def patches_of(crops: UInt8[np.ndarray, "c height width 3"], settings: ImageSettings) -> Float32[np.ndarray, "c p x"]:
    """Normalised patches, row by row; each holds its pixels row by row, three colours per pixel."""
    (rows, columns), size = settings.grid, settings.patch_size
    grid = crops.reshape(len(crops), rows, size, columns, size, 3).swapaxes(2, 3)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    pixels = grid / (std * 255)
    pixels -= mean / std
    return pixels.reshape(len(crops), rows * columns, size * size * 3)
