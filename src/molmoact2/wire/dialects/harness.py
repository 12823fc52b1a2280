"""Frames of the websocket protocol, version 1, of the vla-evaluation-harness.

A frame is a msgpack map of "type", "payload", "seq" and "timestamp". In the payload an array is
`{"__ndarray__": True, "data": bytes, "dtype": "<f4", "shape": [2, 3]}`, and an image `{"__image__": True, "format":
"png", "jpeg" or "raw", "data": bytes, "shape": [height, width, 3]}`, when raw with its dtype.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from molmoact2.wire.arrays import checked_array, shown
from molmoact2.wire.images import decode_image
from molmoact2.wire.limits import Limits, require
from molmoact2.wire.packing import Counter, packed
from molmoact2.wire.packing import unpack as unpack_bounded

HARNESS_PROTOCOL = 1
FrameType: TypeAlias = Literal["hello", "observation", "action", "episode_start", "episode_end", "error"]
FRAME_FIELDS = {"type", "payload", "seq", "timestamp"}
ARRAY, IMAGE = "__ndarray__", "__image__"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message, of either side."""

    type: FrameType
    payload: dict[str, Any]
    seq: int
    """Of the client's message; an answer repeats it."""
    timestamp: float = field(default_factory=time.time)
    """Unix seconds."""


def unpack(data: bytes, limits: Limits) -> Frame:
    """The frame in `data`, arrays and images read-only; WireError unless it is one within `limits`."""
    images = Counter(limits.num_images, "images")
    value = unpack_bounded(data, limits, map_hook=lambda found: read_map(found, limits, images))
    names, kinds = ", ".join(sorted(FRAME_FIELDS)), get_args(FrameType)
    is_frame = isinstance(value, dict) and value.keys() == FRAME_FIELDS
    require(is_frame, f"A frame must be a map of {names}, got {shown(value)}.")
    require(value["type"] in kinds, f"type: must be one of {', '.join(kinds)}, got {shown(value['type'])}.")
    payload = value["payload"]
    is_named = isinstance(payload, dict) and all(isinstance(name, str) for name in payload)
    require(is_named, f"payload: must be a map of names, got {shown(payload)}.")
    is_counted = type(value["seq"]) is int and type(value["timestamp"]) in (int, float)
    require(is_counted, "seq and timestamp: must be a whole number, and seconds.")
    return Frame(**value)


def pack(frame: Frame) -> bytes:
    """`frame` as msgpack; arrays in the form above, images among them too."""
    return packed(vars(frame), write)


def read_map(value: dict[Any, Any], limits: Limits, images: Counter) -> Any:
    """The array or image that a map stands for, or the map."""
    if IMAGE in value:
        images.add(1)
        return read_image(value, limits)
    if ARRAY in value:
        check_fields(value, {ARRAY, "data", "dtype", "shape"})
        return checked_array(value["data"], value["dtype"], value["shape"], limits)
    return value


def read_image(value: dict[Any, Any], limits: Limits) -> np.ndarray:
    """The pixels of an image."""
    if value.get("format") == "raw":
        check_fields(value, {IMAGE, "format", "data", "dtype", "shape"})
        return checked_array(value["data"], value["dtype"], value["shape"], limits)
    check_fields(value, {IMAGE, "format", "data", "shape"})
    is_file = value["format"] in ("png", "jpeg") and isinstance(value["data"], bytes)
    require(is_file, f"An image must be the bytes of a png, jpeg or raw one, got {shown(value['format'])}.")
    pixels = decode_image(value["data"], limits)
    is_true = value["shape"] == list(pixels.shape)
    require(is_true, f"An image of shape {list(pixels.shape)} was said to have {shown(value['shape'])}.")
    return pixels


def check_fields(value: dict[Any, Any], names: set[str]) -> None:
    """WireError unless the map has exactly these keys."""
    complaint = f"An array or image must be a map of {', '.join(sorted(names))}, got {shown(list(value))}."
    require(value.keys() == names, complaint)


def write(value: object) -> Any:
    """What stands for an array or a number of numpy."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {ARRAY: True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    raise TypeError(f"msgpack has no {type(value).__name__}.")
