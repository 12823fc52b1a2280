"""The messages of our own protocol as bytes, and back.

A message is one msgpack map: "type", and the fields of its dataclass, all of them, by name. An array is extension 1:

    dtype, 3 characters | dimensions, 1 byte | 5 sizes, 4 bytes each, else 0 | numbers, little-endian, row by row

and a JPEG or PNG, in place of an image, is extension 2. What cannot be read is not written either.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from types import MappingProxyType
from typing import Any, get_args

import msgpack
import numpy as np

from molmoact2.wire.arrays import checked_array, shown
from molmoact2.wire.fields import Compressed, Reader, reader_of
from molmoact2.wire.images import encode_jpeg
from molmoact2.wire.limits import Limits, require
from molmoact2.wire.messages import Ask, Message
from molmoact2.wire.packing import unpack

ARRAY, IMAGE = 1, 2
"""Our extensions of msgpack."""
MAX_DIMS = 5
ARRAY_HEADER = struct.Struct(f"<3sB{MAX_DIMS}I")
EXTENSION_HEADER = struct.Struct(">BIb")
EXTENSION_32 = 0xC9
"""msgpack's mark of an extension whose length takes four bytes."""

KINDS: Mapping[type[Any], str] = MappingProxyType({kind: kind.__name__.lower() for kind in get_args(Message)})
"""Message -> its "type" on the wire."""
READERS: Mapping[str, Reader] = MappingProxyType({name: reader_of(kind) for kind, name in KINDS.items()})

UNLIMITED = Limits(**dict.fromkeys(vars(Limits()), 2**62))
"""Types and values alone are checked, as before sending: only the receiver knows its limits."""


def decode(data: bytes, limits: Limits) -> Message:
    """The message in `data`; WireError unless it is one, whole, with every field right and within `limits`.

    Arrays are read-only views; images are uint8 [height, width, 3], compressed or not.
    """
    fields = unpack(data, limits, ext_hook=lambda code, body: read_extension(code, body, limits))
    require(isinstance(fields, dict), f"A message must be a map, got {shown(fields)}.")
    kind = fields.pop("type", None)
    is_known = isinstance(kind, str) and kind in READERS
    require(is_known, f"type: must be one of {', '.join(READERS)}, got {shown(kind)}.")
    return READERS[kind](fields, kind, limits)


def encode(message: Message, *, jpeg_quality: int | None = None) -> bytes:
    """`message` as bytes; with `jpeg_quality`, 1 to 95, the images of an Ask as JPEG, else as they are.

    Raises WireError where a field is not what the receiver has to be sent: a number that is not finite, an image of
    floating point, images without names.
    """
    kind = KINDS[type(message)]
    fields = plain(message)
    READERS[kind](fields, kind, UNLIMITED)
    if isinstance(message, Ask) and jpeg_quality is not None:
        images = fields["observation"]["images"]
        fields["observation"]["images"] = {
            name: Compressed(data=encode_jpeg(image, jpeg_quality)) for name, image in images.items()
        }
    return b"".join(pieces({"type": kind, **fields}, msgpack.Packer()))


def read_extension(code: int, body: bytes, limits: Limits) -> Any:
    """An array, or an image that is decoded when its turn comes."""
    if code == IMAGE:
        return Compressed(data=body)
    has_header = code == ARRAY and len(body) >= ARRAY_HEADER.size
    require(has_header, f"Extensions are {ARRAY} for an array with its header, {IMAGE} for an image; got {code}.")
    dtype, num_dims, *sizes = ARRAY_HEADER.unpack_from(body)
    is_plain = num_dims <= len(sizes) and not any(sizes[num_dims:])
    require(is_plain, f"An array has up to {len(sizes)} dimensions, and zeros for the others, got {num_dims}, {sizes}.")
    numbers = memoryview(body)[ARRAY_HEADER.size :]
    return checked_array(numbers, dtype.decode("latin-1"), sizes[:num_dims], limits)


def plain(value: object) -> Any:
    """Maps, lists, arrays, text and numbers, as they are written."""
    if is_dataclass(value):
        return {name: plain(inner) for name, inner in vars(value).items()}
    match value:
        case Mapping():
            return {name: plain(inner) for name, inner in value.items()}
        case tuple() | list():
            return [plain(inner) for inner in value]
        case np.generic():
            return value.item()
    return value


def pieces(value: object, packer: msgpack.Packer) -> Iterator[bytes | memoryview]:
    """The bytes of `value`, one after the other; arrays are not copied before they are joined."""
    match value:
        case dict():
            yield packer.pack_map_header(len(value))
            for name, inner in value.items():
                yield packer.pack(name)
                yield from pieces(inner, packer)
        case list():
            yield packer.pack_array_header(len(value))
            for inner in value:
                yield from pieces(inner, packer)
        case np.ndarray():
            array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
            sizes = (*value.shape, *[0] * MAX_DIMS)[:MAX_DIMS]
            yield EXTENSION_HEADER.pack(EXTENSION_32, ARRAY_HEADER.size + array.nbytes, ARRAY)
            yield ARRAY_HEADER.pack(array.dtype.str.encode(), value.ndim, *sizes)
            yield array.reshape(-1).view(np.uint8).data
        case Compressed():
            yield EXTENSION_HEADER.pack(EXTENSION_32, len(value.data), IMAGE)
            yield value.data
        case _:
            yield packer.pack(value)
