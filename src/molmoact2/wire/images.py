"""JPEG and PNG images, measured before they are decoded.

Pillow reads them. What costs much and brings a robot nothing is refused first, by the bytes: areas beyond the limits,
JPEGs of many scans, PNGs with compressed remarks.
"""

import struct
from collections.abc import Iterator
from io import BytesIO
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from molmoact2.wire.arrays import check_area
from molmoact2.wire.limits import Limits, WireError, require

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
JPEG_END, PNG_END = b"\xff\xd9", b"\0\0\0\0IEND\xaeB\x60\x82"

START_OF_SCAN = b"\xff\xda"
MAX_SCANS = 4
"""Of a JPEG: one, or one per colour, and one of a thumbnail. A progressive one has more, and each costs a pass."""

PNG_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"tEXt", b"eXIf"}
"""The others are palettes, transparency, animation, and text that has to be decompressed."""
MAX_PNG_CHUNKS = 2**14


def decode_image(data: bytes, limits: Limits, where: str = "image") -> NDArray[np.uint8]:
    """The pixels [height, width, 3] of a JPEG or PNG of three 8-bit colours, read-only; WireError for anything else.

    Its area is checked before memory is taken for it.
    """
    if data.startswith(PNG):
        check_png(data, where)
    elif data.startswith(JPEG):
        check_jpeg(data, where)
    else:
        raise WireError(f"{where}: an image must be JPEG or PNG, or an array, got {len(data)} other bytes.")
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            check_area(image.height, image.width, limits, where)
            require(image.mode == "RGB", f"{where}: an image must have three 8-bit colours (RGB), got {image.mode}.")
            pixels = np.asarray(image)
    except WireError:
        raise
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise WireError(damage(where)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise WireError(f"{where}: an image has up to {limits.image_pixels} pixels, got many more.") from error
    pixels.flags.writeable = False
    return pixels


def damage(where: str) -> str:
    """What is said about an image that has no pixels to give."""
    return f"{where}: the image cannot be decoded, it is damaged or cut off."


def check_jpeg(data: bytes, where: str) -> None:
    """WireError where decoding would take many passes, or the end is missing, which decoders make up."""
    scans = data.count(START_OF_SCAN)
    require(scans <= MAX_SCANS, f"{where}: a JPEG must be baseline, with up to {MAX_SCANS} scans, got {scans}.")
    require(data.rstrip(b"\0").endswith(JPEG_END), damage(where))


def check_png(data: bytes, where: str) -> None:
    """WireError where there is more than pixels and short remarks."""
    size = struct.unpack_from(">II", data, 16) if len(data) > 24 else (0, 0)
    kinds = list(islice(png_chunks(data), MAX_PNG_CHUNKS + 1))
    require(all(size) and data.endswith(PNG_END), damage(where))
    foreign = set(kinds) - PNG_CHUNKS
    found = ", ".join(sorted(repr(kind)[1:] for kind in list(foreign)[:4])) or f"{MAX_PNG_CHUNKS} and more pieces"
    is_plain = not foreign and len(kinds) <= MAX_PNG_CHUNKS
    require(is_plain, f"{where}: a PNG must be plain RGB pixels without palette, text or animation, got {found}.")


def png_chunks(data: bytes) -> Iterator[bytes]:
    """The kinds of a PNG's pieces, in their order."""
    offset = len(PNG)
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        yield kind
        offset += 12 + length


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """`image` [height, width, 3] as a baseline JPEG of `quality` 1 to 95."""
    if not 1 <= quality <= 95:
        raise ValueError(f"The quality of a JPEG must be from 1 to 95, got {quality}.")
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
