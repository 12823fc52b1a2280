"""How long images take from the camera's bytes to the network's patches.

stepwise    the same numbers, one whole-image operation after the other, each with a copy in float32
Pillow      its bilinear resizing (antialiased, so other pixels), then our patches: what a port would do at first
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from benchmarks.networks import CAMERA_SIZE, camera_image
from molmoact2.processing.images import choose_tiling, patches_of, view, view_and_crops
from molmoact2.processing.settings import ImageSettings

RELEASED = ImageSettings(
    crop_mode="resize",
    size=(378, 378),
    patch_size=14,
    pooling=(2, 2),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    max_crops=8,
    margins=(4, 4),
    columns=True,
    view_columns=False,
    view_start=True,
)
"""Image settings of the releases; robots use the single view, questions about photographs the crops."""
PHOTO_SIZE = (720, 1280)

Way: TypeAlias = Callable[[np.ndarray, ImageSettings], np.ndarray]


def one_view(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Ours, for a robot's camera."""
    return patches_of(view(image, settings), settings)


def with_crops(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Ours, for a photograph."""
    tiling = choose_tiling(image.shape[0], image.shape[1], settings)
    return patches_of(view_and_crops(image, settings, tiling), settings)


def stepwise(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """One operation at a time."""
    return stepwise_patches(stepwise_resize(image, settings.size), settings)


def stepwise_with_crops(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """The view and every crop, one at a time."""
    rows, columns = choose_tiling(image.shape[0], image.shape[1], settings)
    (height, width), (down, right) = settings.size, (step * settings.patch_size for step in settings.window)
    whole = stepwise_resize(image, ((rows - 1) * down + height, (columns - 1) * right + width))
    crops = [whole[row * down :, column * right :][:height, :width] for row in range(rows) for column in range(columns)]
    return np.concatenate([stepwise(image, settings), *(stepwise_patches(crop, settings) for crop in crops)])


def stepwise_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bytes of another size."""
    scaled = interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size, mode="bilinear")
    return scaled.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous().numpy()


def stepwise_patches(crop: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Normalised patches."""
    (rows, columns), side = settings.grid, settings.patch_size
    fractions = crop.astype(np.float32) / np.float32(255)
    normalized = (fractions - np.float32(settings.mean)) / np.float32(settings.std)
    patches = normalized.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(patches).reshape(1, rows * columns, -1)


def with_pillow(image: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Another library's pixels."""
    height, width = settings.size
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return patches_of(resized[None], settings)


def benchmark(settings: Settings) -> None:
    """Measure a camera's image and a photograph."""
    camera, photo = camera_image(*CAMERA_SIZE, seed=0), camera_image(*PHOTO_SIZE, seed=1)
    ready = camera[:378, :378].copy()
    contests: list[tuple[str, np.ndarray, Way, str, Way]] = [
        ("camera 480 x 640, one view", camera, one_view, "stepwise", stepwise),
        ("camera 480 x 640, one view", camera, one_view, "Pillow", with_pillow),
        ("camera 378 x 378, one view", ready, one_view, "stepwise", stepwise),
        ("photo 720 x 1280, with crops", photo, with_crops, "stepwise", stepwise_with_crops),
    ]
    rows = []
    for what, image, ours, name, theirs in contests:
        calls = {"ours": partial(ours, image, RELEASED), name: partial(theirs, image, RELEASED)}
        seconds = in_turns(calls, settings)
        faster = ratio(seconds[name], seconds["ours"])
        rows.append([what, milliseconds(seconds["ours"]), name, milliseconds(seconds[name]), faster])
    print_table("Images to patches", ["what", "ours, ms", "against", "ms", "ours is faster"], rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
