"""msgpack in which an array is `{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [2, 3]}`.

What openpi's websocket client writes and reads. A single number of numpy is `{b"__npgeneric__": True, b"data": 1.5,
b"dtype": "<f4"}`. The keys are bytes, not text.
"""

from typing import Any

import numpy as np

from molmoact2.wire.arrays import checked_array, checked_dtype, shown
from molmoact2.wire.limits import Limits, WireError, require
from molmoact2.wire.packing import check_value, packed
from molmoact2.wire.packing import unpack as unpack_bounded

ARRAY, NUMBER = b"__ndarray__", b"__npgeneric__"
ARRAY_FIELDS = {ARRAY, b"data", b"dtype", b"shape"}
NUMBER_FIELDS = {NUMBER, b"data", b"dtype"}


def unpack(data: bytes, limits: Limits) -> Any:
    """The value in `data`, arrays read-only, single numbers as Python's; WireError unless it is within `limits`."""
    return unpack_bounded(data, limits, map_hook=lambda value: read_map(value, limits))


def pack(value: object) -> bytes:
    """`value` as msgpack; arrays and numpy's numbers in the form above."""
    return packed(value, write)


def read_map(value: dict[Any, Any], limits: Limits) -> Any:
    """The array or number that a map stands for, or the map."""
    if ARRAY in value:
        check_fields(value, ARRAY_FIELDS)
        return checked_array(value[b"data"], value[b"dtype"], value[b"shape"], limits)
    if NUMBER in value:
        check_fields(value, NUMBER_FIELDS)
        return read_number(value[b"data"], value[b"dtype"], limits)
    return value


def check_fields(value: dict[Any, Any], names: set[bytes]) -> None:
    """WireError unless the map has exactly these keys."""
    require(value.keys() == names, f"A map of numpy must have the keys {sorted(names)}, got {shown(list(value))}.")


def read_number(value: object, dtype: object, limits: Limits) -> bool | int | float:
    """A single number, rounded to its type."""
    kind = checked_dtype(dtype)
    require(isinstance(value, int | float), f"A number must be one, got {shown(value)}.")
    check_value(value, limits)
    try:
        with np.errstate(over="ignore"):
            return kind.type(value).item()
    except OverflowError as error:
        raise WireError(f"A number must fit into {dtype}, got {value}.") from error


def write(value: object) -> dict[bytes, Any]:
    """The map that stands for an array or a number of numpy."""
    if isinstance(value, np.generic):
        return {NUMBER: True, b"data": value.item(), b"dtype": value.dtype.str}
    if isinstance(value, np.ndarray):
        return {ARRAY: True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"msgpack has no {type(value).__name__}.")
