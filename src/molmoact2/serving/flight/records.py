"""Events as msgpack records and back, exactly: the bits of every number, and nothing that is not expected.

A record is a map with a "kind". Images stand in records of their own, and an exchange says at which byte of its file
each of its images is, so that an image that comes again is not written again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

import msgpack
import numpy as np
from numpy.typing import NDArray

from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight.events import Ended, Failed, Gap, Moved, PolicyIdentity
from molmoact2.serving.flight.pictures import pack_image, unpack_image
from molmoact2.serving.flight.segments import LARGEST_RECORD
from molmoact2.tokens.reading import require
from molmoact2.types import ActionChunk, Committed, DepthReasoning, Image, Observation
from molmoact2.wire.arrays import shown
from molmoact2.wire.codec import pieces, plain, read_extension
from molmoact2.wire.fields import (
    Reader,
    check,
    check_names,
    map_reader,
    optional_reader,
    read_count,
    read_number,
    read_text,
    read_truth,
    reader_of,
    row_reader,
    word_reader,
)
from molmoact2.wire.limits import Code, Limits
from molmoact2.wire.packing import unpack

LIMITS = Limits(message_bytes=LARGEST_RECORD, num_values=2**22, num_items=2**16, num_entries=2**20, num_text=2**20)
"""Of our own writing, so they bound memory and nothing else."""
FORMAT = 1
FetchImage: TypeAlias = Callable[[int], Image]
"""Offset of an image record in the file -> the image."""


@dataclass(frozen=True, kw_only=True)
class Begin:
    """The first record of every segment."""

    format: int
    flight: str
    """Random; the segments of one run of the server have the same."""
    segment: int
    """Counts the segments of the flight, from 0."""
    at: float
    """Unix time at which the flight began."""
    policy: PolicyIdentity


@dataclass(frozen=True, kw_only=True)
class End:
    """The last record of a flight that was closed."""

    at: float
    num_exchanges: int
    """That were told to the recorder, the missing ones included."""


SIMPLE: Mapping[str, type[Any]] = MappingProxyType(
    {"begin": Begin, "moved": Moved, "failed": Failed, "ended": Ended, "gap": Gap, "end": End}
)
"""Kind -> records that are their dataclass."""
KINDS: Mapping[type[Any], str] = MappingProxyType({kind: name for name, kind in SIMPLE.items()})


def reader_where(is_allowed: Callable[[Any], bool], allowed: str) -> Reader:
    """Reads what `is_allowed` says yes to; `allowed` says in words what that is."""

    def read(value: Any, where: str, _: Limits) -> Any:
        check(is_allowed(value), where, allowed, value)
        return value

    return read


def array_reader(kinds: str, num_dims: int) -> Reader:
    """Reads an array of these kinds of numpy dtypes, of any values."""
    return reader_where(
        lambda value: isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim == num_dims,
        f"an array of {num_dims} dimensions and kind {kinds}",
    )


read_integer = reader_where(lambda value: type(value) is int, "a whole number")
read_option = reader_where(
    lambda value: isinstance(value, str | int | float | None), "a word, a number or a truth value"
)
read_bytes = reader_where(lambda value: isinstance(value, bytes), "bytes")


def fields_reader(make: Callable[..., Any], **readers: Reader) -> Reader:
    """Reads a map of exactly these fields and makes something of them."""

    def read(value: Any, where: str, limits: Limits) -> Any:
        check_names(value, readers.keys(), where)
        return make(**{name: reader(value[name], f"{where}.{name}", limits) for name, reader in readers.items()})

    return read


READ_DEPTH = fields_reader(
    DepthReasoning,
    codes=array_reader("i", 1),
    changed=array_reader("b", 1),
    age=read_count,
    passes=read_count,
    gates=optional_reader(array_reader("f", 1)),
)
READ_CHUNK = fields_reader(
    ActionChunk, actions=array_reader("f", 2), depth=optional_reader(READ_DEPTH), timing=map_reader(read_number)
)
READ_QUESTION = fields_reader(
    Question,
    observation=fields_reader(
        Observation, images=map_reader(read_count), state=array_reader("iuf", 1), instruction=read_text
    ),
    embodiment=read_text,
    options=map_reader(read_option),
    seed=read_integer,
    committed=optional_reader(fields_reader(Committed, actions=array_reader("f", 2), delay=read_integer)),
)
READ_EXCHANGE = fields_reader(
    Exchange,
    number=read_count,
    session=read_text,
    client=read_text,
    dialect=read_text,
    request=read_text,
    question=READ_QUESTION,
    chunk=optional_reader(READ_CHUNK),
    refusal=optional_reader(row_reader([word_reader(get_args(Code)), read_text])),
    batch=read_integer,
    episode=read_count,
    arrived_at=read_number,
    queue_s=read_number,
    inference_s=read_number,
    total_s=read_number,
    observed_at=optional_reader(read_number),
    remembers=read_truth,
    together=read_count,
)
"""An `Exchange` whose images are offsets."""
READERS: Mapping[str, Reader] = MappingProxyType(
    {name: reader_of(kind) for name, kind in SIMPLE.items()}
    | {
        "exchange": READ_EXCHANGE,
        "image": fields_reader(dict, height=read_count, width=read_count, pixels=read_bytes),
    }
)


def written(kind: str, fields: Mapping[str, Any]) -> bytes:
    """A record as bytes; ValueError where it could not be read again."""
    READERS[kind](dict(fields), kind, LIMITS)
    return b"".join(pieces({"kind": kind, **fields}, msgpack.Packer()))


def write_event(event: Begin | Moved | Failed | Ended | Gap | End) -> bytes:
    """The record of anything but an exchange."""
    return written(KINDS[type(event)], plain(event))


def write_image(image: NDArray[Any]) -> bytes:
    """The record of an image."""
    height, width = image.shape[:2]
    return written("image", {"height": height, "width": width, "pixels": pack_image(image)})


def write_exchange(exchange: Exchange, images: Mapping[str, int]) -> bytes:
    """The record of an exchange; `images` are the offsets of its images in the file, by camera."""
    question, chunk = exchange.question, exchange.chunk
    observation = {**vars(question.observation), "images": dict(images)}
    fields = {
        **vars(exchange),
        "question": {**vars(question), "observation": observation, "options": dict(question.options)},
        "chunk": None if chunk is None else {**vars(chunk), "depth": written_thought(chunk.depth)},
    }
    return written("exchange", plain(fields))


def written_thought(depth: DepthReasoning | None) -> dict[str, Any] | None:
    """The fields of a thought, without the picture that can be made of it."""
    names = ("codes", "changed", "age", "passes", "gates")
    return None if depth is None else {name: vars(depth)[name] for name in names}


def read(payload: bytes) -> Any:
    """What a record is: an event, an `Exchange` whose images are offsets, or the fields of an image.

    Raises ValueError unless it is one of ours, whole.
    """
    fields = unpack(payload, LIMITS, ext_hook=lambda code, body: read_extension(code, body, LIMITS))
    match fields:
        case {"kind": str(kind), **rest} if kind in READERS:
            return READERS[kind](rest, kind, LIMITS)
    raise ValueError(f"A record is a map with a kind of {', '.join(READERS)}, got {shown(fields)}.")


def read_image(payload: bytes) -> Image:
    """The image of an image record; ValueError where it is none."""
    fields = read(payload)
    require(isinstance(fields, dict), f"An image was to be here, got {type(fields).__name__}.")
    return unpack_image(fields["pixels"], fields["height"], fields["width"])
