"""Camera images as few bytes, exactly, at a cost that a server can pay for each.

Every pixel is written as its difference to the one on its left, which turns smooth areas into zeros, and then deflated
with runs only. `benchmarks/flight_recorder.py` compares this with PNG and WebP.
"""

import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from molmoact2.tokens.reading import require
from molmoact2.wire.limits import Limits

LIMITS = Limits()
CHANNELS = 3


def pack_image(image: NDArray[Any]) -> bytes:
    """The pixels of a uint8 image [height, width, 3]; ValueError for anything else."""
    is_image = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == CHANNELS
    require(is_image, f"An image is uint8 [height, width, 3], got {image.dtype} {list(image.shape)}.")
    differences = image.copy()
    differences[:, 1:] -= image[:, :-1]
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(differences.data) + deflate.flush()


def unpack_image(data: bytes, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The image again; ValueError unless `data` is an image of exactly this size. Read-only."""
    fits = 0 <= height * width <= LIMITS.image_pixels
    require(fits, f"An image has up to {LIMITS.image_pixels} pixels, got {height} x {width}.")
    wanted, inflate = height * width * CHANNELS, zlib.decompressobj()
    try:
        pixels = inflate.decompress(data, wanted + 1)
    except zlib.error as error:
        raise ValueError(f"The pixels of an image do not inflate: {error}.") from error
    is_whole = len(pixels) == wanted and inflate.eof and not inflate.unused_data
    require(is_whole, f"The pixels of an image of {height} x {width} are {wanted} bytes, got others.")
    differences = np.frombuffer(pixels, np.uint8).reshape(height, width, CHANNELS)
    image = np.cumsum(differences, axis=1, dtype=np.uint8)
    image.flags.writeable = False
    return image
