"""JSON in which an array is `{"__numpy__": base64 of its bytes, "dtype": "<f4", "shape": [2, 3]}`.

What the `json_numpy` package writes and reads; a shape of [] is a single number.
"""

import binascii
import json
from base64 import b64decode, b64encode
from typing import Any

import numpy as np

from molmoact2.wire.arrays import checked_array, shown
from molmoact2.wire.limits import Limits, WireError, require
from molmoact2.wire.packing import Counter, check_size, check_values, unique

MARK = "__numpy__"
FIELDS = {MARK, "dtype", "shape"}


def loads(body: bytes, limits: Limits) -> Any:
    """The JSON value of `body`, arrays read-only, single numbers as Python's.

    WireError unless it is one value in UTF-8 and within `limits`, with unique keys and finite numbers.
    """
    check_size(body, limits)
    are_few = sum(body.count(mark) for mark in (b",", b"[", b"{")) <= limits.num_entries + limits.num_text
    require(are_few, f"A message has up to {limits.num_entries} entries, got more. Send arrays as {MARK!r}.")
    entries = Counter(limits.num_entries, "entries")
    try:
        value = json.loads(body.decode(), object_pairs_hook=lambda pairs: read_map(unique(pairs, entries), limits))
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        found = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise WireError(f"This is not JSON in UTF-8: {found}.") from error
    check_values(value, limits)
    return value


def dumps(value: object) -> bytes:
    """`value` as JSON, arrays and numpy's numbers in the form above; ValueError for numbers that are not finite."""
    return json.dumps(value, default=write, allow_nan=False).encode()


def read_map(value: dict[str, Any], limits: Limits) -> Any:
    """The array that a map stands for, or the map."""
    if MARK not in value:
        return value
    is_array = value.keys() == FIELDS and isinstance(value[MARK], str)
    require(is_array, f"An array must be a map of {', '.join(sorted(FIELDS))}, got {shown(sorted(value))}.")
    try:
        data = b64decode(value[MARK], validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError(f"{MARK}: must be base64: {error}.") from error
    array = checked_array(data, value["dtype"], value["shape"], limits)
    return array if array.ndim else array.item()


def write(value: object) -> dict[str, Any]:
    """The map that stands for an array or a number of numpy."""
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"JSON has no {type(value).__name__}.")
    array = np.asarray(value)
    return {MARK: b64encode(array.tobytes()).decode(), "dtype": array.dtype.str, "shape": list(array.shape)}
