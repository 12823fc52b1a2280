"""What an episode looks like: twelve equally spaced moments of every camera that is not frozen."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from molmoact2.data.reader import LeRobotDataset

NUM_MOMENTS = 12
BLOCKS = 16
"""Images are compared by the mean colours of this many blocks a side, which noise and compression hardly change."""
FROZEN_LEVELS = 20
"""Largest difference of a block, in levels of 255, that is still the same picture. Measured: one picture, with noise of
10 levels and H.264 up to CRF 30, differs by at most 17; a camera that sees a robot move, by at least 129. What is taken
to move although it does not costs tokens only (docs/annotation.md)."""
JPEG_QUALITY = 88
SHEET_COLUMNS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Storyboard:
    """The moments of one episode, first and last frame included."""

    episode_index: int
    task: str
    """The recorded instruction, of the first frame."""
    views: Mapping[str, NDArray[np.uint8]]
    """Camera -> [moments, height, width, 3] RGB, of the cameras in which something happens."""
    frozen: tuple[str, ...]
    """The other cameras."""


def take_storyboard(dataset: LeRobotDataset, episode_index: int, *, image_side: int) -> Storyboard:
    """Decode the moments of an episode, with images of at most `image_side` pixels a side.

    An episode of fewer than twelve frames has a moment per frame.
    """
    record = dataset.episodes[episode_index]
    rows = np.unique(np.linspace(record.from_index, record.to_index - 1, NUM_MOMENTS).round().astype(int))
    frames = [dataset.frame(int(row)) for row in rows]
    views = {
        camera: np.stack([shrink(frame.images[camera], image_side) for frame in frames]) for camera in dataset.cameras
    }
    frozen = tuple(camera for camera, images in views.items() if is_frozen(images))
    return Storyboard(
        episode_index=episode_index,
        task=frames[0].task,
        views={camera: images for camera, images in views.items() if camera not in frozen},
        frozen=frozen,
    )


def is_frozen(images: NDArray[np.uint8]) -> bool:
    """Whether all images [moments, height, width, 3] show the same."""
    blocks = np.stack([resize(image, BLOCKS, BLOCKS) for image in images]).astype(np.int16)
    return int(np.abs(blocks - blocks[0]).max()) <= FROZEN_LEVELS


def shrink(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image with its longer side at most `side` pixels, in proportion; a small one as it is."""
    height, width = fitted(image.shape[0], image.shape[1], side)
    return image if (height, width) == image.shape[:2] else resize(image, height, width)


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image after `shrink`."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Area averages, which is what making smaller needs."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def sheet(images: NDArray[np.uint8], columns: int = SHEET_COLUMNS) -> NDArray[np.uint8]:
    """Images [moments, height, width, 3] as one picture: in reading order, `columns` to a row, black where none is."""
    rows = -(-len(images) // columns)
    padded = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    grid = padded.reshape(rows, columns, *images.shape[1:]).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * images.shape[1], columns * images.shape[2], 3)


def jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """The image [height, width, 3] as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()
