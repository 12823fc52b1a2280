"""Bytes that are arrays: only plain numbers, only as many as announced, and never a copy."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.wire.limits import Limits, WireError, require

DTYPES: Mapping[str, np.dtype[Any]] = {
    text: np.dtype(text)
    for text in ("|b1", "|i1", "|u1", "<i2", "<u2", "<f2", "<i4", "<u4", "<f4", "<i8", "<u8", "<f8")
}
"""What a number may be; anything else is refused before numpy hears of it."""

COLOURED = 3
"""Dimensions of an image: [height, width, channels]."""


def checked_dtype(dtype: object, where: str = "array") -> np.dtype[Any]:
    """The numpy type of a name such as "<f4"; WireError for objects, structures, text, times and big-endian numbers."""
    known = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if known is None:
        raise WireError(f"{where}: the dtype must be one of {', '.join(DTYPES)}, got {shown(dtype)}.")
    return known


def checked_shape(shape: object, limits: Limits, where: str = "array") -> tuple[int, ...]:
    """A shape within `limits`: three dimensions are an image, anything else is `num_values` numbers at most."""
    sizes = tuple(shape) if isinstance(shape, list | tuple) else (-1,)
    largest = max(limits.image_side, limits.num_values)
    allowed = f"up to {limits.num_array_dims} whole numbers from 0 to {largest}"
    is_shape = all(type(size) is int and 0 <= size <= largest for size in sizes)
    require(
        is_shape and len(sizes) <= limits.num_array_dims, f"{where}: the shape must be {allowed}, got {shown(shape)}."
    )
    if len(sizes) == COLOURED:
        check_area(sizes[0], sizes[1], limits, where)
    else:
        allowed = f"an array that is no image has up to {limits.num_values} numbers"
        require(prod(sizes) <= limits.num_values, f"{where}: {allowed}, got {list(sizes)}.")
    return sizes


def check_area(height: int, width: int, limits: Limits, where: str) -> None:
    """WireError unless an image of this size may be sent."""
    is_small = height * width <= limits.image_pixels and max(height, width) <= limits.image_side
    allowed = f"up to {limits.image_pixels} pixels and {limits.image_side} on a side"
    require(is_small, f"{where}: an image has {allowed}, got {height} x {width}. Send a smaller one.")


def checked_array(
    data: bytes | memoryview, dtype: object, shape: object, limits: Limits, where: str = "array"
) -> NDArray[Any]:
    """A read-only view of `data`; WireError unless dtype, shape and the number of bytes are allowed and agree.

    Numbers may still be infinite or not a number; whoever knows what they mean says whether they may.
    """
    kind, sizes = checked_dtype(dtype, where), checked_shape(shape, limits, where)
    require(isinstance(data, bytes | memoryview), f"{where}: the numbers must be bytes, got {type(data).__name__}.")
    needed, found = prod(sizes) * kind.itemsize, memoryview(data).nbytes
    require(found == needed, f"{where}: {dtype} of shape {list(sizes)} takes {needed} bytes, got {found}.")
    array = np.ndarray(sizes, kind, data)
    is_true_or_false = kind.kind != "b" or array.view(np.uint8).max(initial=0) <= 1
    require(is_true_or_false, f"{where}: truth values must be the bytes 0 and 1.")
    array.flags.writeable = False
    return array


def shown(value: object) -> str:
    """`value` for an error: short, whatever was sent."""
    match value:
        case str() | list() | tuple():
            text = repr(value[:80])
        case int() | float() | None:
            text = repr(value)
        case _:
            text = type(value).__name__
    return text[:80] + "…" * (len(text) > 80)
