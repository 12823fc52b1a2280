"""Compressed images: pixels come out, and nothing that is expensive or not an image gets in."""

import struct
import zlib
from dataclasses import replace
from io import BytesIO
from itertools import repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from PIL import Image

from molmoact2.wire.images import JPEG, MAX_PNG_CHUNKS, PNG, decode_image, encode_jpeg
from molmoact2.wire.limits import Limits, WireError

LIMITS = Limits()
GRADIENT = np.fromfunction(lambda y, x, c: 2 * y + x + 20 * c, (40, 60, 3)).astype(np.uint8)


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join((PNG, header, *chunks, chunk(b"IDAT", zlib.compress(b"\0" * 64)), chunk(b"IEND", b"")))


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header says that it is large."""
    data = bytearray(saved(GRADIENT, "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def progressive() -> bytes:
    """One whose every scan is another pass over all pixels."""
    return saved(GRADIENT, "JPEG", progressive=True, quality=95)


@given(stnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_gives_back_every_pixel(pixels: np.ndarray):
    found = decode_image(saved(pixels, "PNG"), LIMITS)
    np.testing.assert_array_equal(found, pixels)
    assert not found.flags.writeable


def test_jpeg_is_what_pillow_makes_of_it():
    data = encode_jpeg(GRADIENT, 95)
    np.testing.assert_array_equal(decode_image(data, LIMITS), np.asarray(Image.open(BytesIO(data))))
    assert np.abs(decode_image(data, LIMITS).astype(int) - GRADIENT).max() < 8


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "must be JPEG or PNG"),
        (b"GIF89a\x01\x00\x01\x00", "must be JPEG or PNG"),
        (saved(GRADIENT, "BMP"), "must be JPEG or PNG"),
        (PNG, "damaged"),
        (JPEG, "damaged"),
        (saved(GRADIENT, "PNG")[:-40], "damaged"),
        (saved(GRADIENT, "JPEG")[:-400], "damaged"),
        (png_of(60000, 60000), "pixels"),
        (png_of(2**31 - 1, 2**31 - 1), "pixels"),
        (png_of(0, 5), "damaged"),
        (png_of(8193, 1), "on a side"),
        (jpeg_of(65500, 65500), "pixels"),
        (jpeg_of(4000, 4000), "4000 x 4000"),
        (progressive(), "baseline"),
        (saved(GRADIENT[..., 0], "JPEG"), "RGB"),
        (saved(GRADIENT[..., 0], "PNG"), "RGB"),
        (saved(np.dstack([GRADIENT, GRADIENT[..., :1]]), "PNG"), "RGB"),
        (saved((GRADIENT[..., 0] > 50), "PNG"), "RGB"),
        (png_of(4, 4, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**20))), "zTXt"),
        (png_of(4, 4, chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 2**20))), "iCCP"),
        (png_of(4, 4, chunk(b"acTL", struct.pack(">II", 2, 0))), "acTL"),
        (png_of(4, 4, *repeat(chunk(b"tIME", b""), MAX_PNG_CHUNKS)), "pieces"),
        (png_of(9, 9), "damaged"),
    ],
)
def test_what_is_no_small_rgb_image_is_refused(data: bytes, complaint: str):
    with pytest.raises(WireError, match=complaint):
        decode_image(data, LIMITS)


def test_the_area_that_is_allowed_is_allowed():
    limits = replace(LIMITS, image_pixels=GRADIENT.shape[0] * GRADIENT.shape[1], image_side=60)
    data = saved(GRADIENT, "PNG")
    assert decode_image(data, limits).shape == GRADIENT.shape
    with pytest.raises(WireError, match="up to 2399 pixels"):
        decode_image(data, replace(limits, image_pixels=2399))
    with pytest.raises(WireError, match="59 on a side, got 40 x 60"):
        decode_image(data, replace(limits, image_side=59))


@pytest.mark.parametrize("quality", [0, 96, -1])
def test_quality_is_one_that_jpeg_has(quality: int):
    with pytest.raises(ValueError, match="1 to 95"):
        encode_jpeg(GRADIENT, quality)
