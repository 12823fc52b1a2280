"""msgpack that takes no more memory than its bytes deserve."""

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import msgpack

from molmoact2.wire.limits import Limits, WireError, require
from molmoact2.wire.observation import is_unicode

Hook = Callable[[dict[Any, Any]], Any]


class Counter:
    """Refuses the entry that is one too many, while a message is read."""

    def __init__(self, allowed: int, what: str) -> None:
        self.left, self.allowed, self.what = allowed, allowed, what

    def add(self, count: int) -> None:
        """Count `count` more; WireError beyond what is allowed."""
        self.left -= count
        require(self.left >= 0, f"A message has up to {self.allowed} {self.what}, got more.")


def unpack(
    data: bytes,
    limits: Limits,
    *,
    map_hook: Hook = lambda value: value,
    ext_hook: Callable[[int, bytes], Any] | None = None,
) -> Any:
    """The msgpack value in `data`: `map_hook` sees every map, innermost first, `ext_hook` every extension.

    WireError unless `data` is one whole value within `limits`, with unique keys, valid text, finite numbers.
    """
    check_size(data, limits)
    entries = Counter(limits.num_entries, "entries")

    def on_list(values: list[Any]) -> list[Any]:
        entries.add(len(values) + 1)
        return values

    def on_map(pairs: Iterable[tuple[Any, Any]]) -> Any:
        return map_hook(unique(pairs, entries))

    try:
        value = msgpack.unpackb(
            data,
            list_hook=on_list,
            object_pairs_hook=on_map,
            ext_hook=ext_hook or no_extension,
            max_array_len=limits.num_items,
            max_map_len=limits.num_items,
        )
    except WireError:
        raise
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"This is not one msgpack value of allowed size: {error or type(error).__name__}.") from error
    check_values(value, limits)
    return value


def packed(value: object, write: Callable[[Any], Any]) -> bytes:
    """`value` as msgpack; `write` says what stands for things that msgpack does not know."""
    try:
        return cast(bytes, msgpack.packb(value, default=write))
    except OverflowError as error:
        raise ValueError(f"Whole numbers have up to 64 bits, got more: {error}.") from error


def check_size(data: bytes, limits: Limits) -> None:
    """WireError where a message is too long to be read at all."""
    require(len(data) <= limits.message_bytes, f"A message has up to {limits.message_bytes} bytes, got {len(data)}.")


def unique(pairs: Iterable[tuple[Any, Any]], entries: Counter) -> dict[Any, Any]:
    """The map of these entries; WireError where a key comes twice."""
    listed = list(pairs)
    entries.add(len(listed) + 1)
    found = dict(listed)
    require(len(found) == len(listed), "A key of a map comes twice.")
    return found


def no_extension(code: int, _: bytes) -> Any:
    """Refuse an extension of msgpack."""
    raise WireError(f"Extension {code} of msgpack means nothing here.")


def check_values(value: object, limits: Limits) -> None:
    """WireError unless maps and lists are nested within the limits, numbers are finite, and text is whole."""
    level = [value]
    for _ in range(limits.depth + 1):
        for item in level:
            check_value(item, limits)
        level = [inner for item in level for inner in inside(item)]
    require(not level, f"Maps and lists are nested up to {limits.depth} deep, got more.")


def check_value(value: object, limits: Limits) -> None:
    """WireError for one number or container that may not be."""
    match value:
        case float() if not math.isfinite(value):
            raise WireError(f"Numbers must be finite, got {value}.")
        case int() if not -(2**63) <= value < 2**64:
            raise WireError("Whole numbers have up to 64 bits, got more.")
        case str() if not is_unicode(value):
            raise WireError("Text must be Unicode, got half a character.")
        case dict() | list() if len(value) > limits.num_items:
            raise WireError(f"A map or list has up to {limits.num_items} entries, got {len(value)}.")


def inside(value: object) -> list[Any]:
    """What a map or a list holds, its keys included."""
    match value:
        case dict():
            return [*value.keys(), *value.values()]
        case list():
            return value
    return []
