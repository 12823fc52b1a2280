"""From a dataclass's own types to a function that reads it: nothing left out, nothing new, nothing of another type.

    read = reader_of(Hello)
    read({"client": "arm", "protocol": 1, "session": None}, "hello", Limits())   ->   Hello(client="arm", …)

A new field of a message is read without a change here, unless its type is new too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np

from molmoact2.types import Observation
from molmoact2.wire.arrays import shown
from molmoact2.wire.images import decode_image
from molmoact2.wire.limits import Limits, WireError, require
from molmoact2.wire.observation import checked_observation
from molmoact2.wire.rules import RULES

Reader: TypeAlias = Callable[[Any, str, Limits], Any]
"""(what came, where it stands in the message, limits) -> what it is; WireError where it is not."""

NUM_DIMS = {"actions": 2, "executed": 2, "measured": 2, "times": 1, "codes": 1, "changed": 1}
"""Array field -> its dimensions."""


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A JPEG or PNG that nobody has decoded yet."""

    data: bytes


def check(is_allowed: object, where: str, allowed: str, got: object) -> None:
    """WireError unless the field is what it has to be."""
    require(is_allowed, f"{where}: must be {allowed}, got {shown(got)}.")


def read_text(value: Any, where: str, limits: Limits) -> str:
    """Text, also empty."""
    is_short = isinstance(value, str) and len(value) <= limits.num_text
    check(is_short, where, f"text of up to {limits.num_text} characters", value)
    return value


def read_count(value: Any, where: str, _: Limits) -> int:
    """A whole number, never negative; a truth value is none."""
    check(type(value) is int and 0 <= value < 2**63, where, "a whole number from 0 to 2**63 - 1", value)
    return value


def read_number(value: Any, where: str, _: Limits) -> float:
    """A finite number."""
    check(type(value) in (int, float) and math.isfinite(value), where, "a finite number", value)
    return float(value)


def read_truth(value: Any, where: str, _: Limits) -> bool:
    """True or false."""
    check(isinstance(value, bool), where, "true or false", value)
    return value


def read_observation(value: Any, where: str, limits: Limits) -> Observation:
    """Its images are decoded last, when it is known how many they are."""
    names = {"images", "state", "instruction"}
    check_names(value, names, where)
    images = value["images"]
    are_few = isinstance(images, Mapping) and len(images) <= limits.num_images
    check(are_few, f"{where}.images", f"up to {limits.num_images} images by the name of their camera", images)
    pixels = {
        name: decode_image(image.data, limits, f"{where}.images.{name}") if isinstance(image, Compressed) else image
        for name, image in images.items()
    }
    return checked_observation(pixels, value["state"], value["instruction"], limits)


PLAIN: Mapping[Any, Reader] = MappingProxyType(
    {str: read_text, int: read_count, float: read_number, bool: read_truth, Observation: read_observation}
)


def reader_of(hint: Any, name: str = "") -> Reader:
    """What reads a field `name` of type `hint`."""
    match get_origin(hint), get_args(hint):
        case None, _ if hint in PLAIN:
            return PLAIN[hint]
        case None, _ if isinstance(hint, type) and is_dataclass(hint):
            return record_reader(hint)
        case (origin, words) if origin is Literal:
            return word_reader(words)
        case (origin, kinds) if origin in (Union, UnionType) and NoneType in kinds:
            (kind,) = set(kinds) - {NoneType}
            return optional_reader(reader_of(kind, name))
        case (origin, (item, end)) if origin is tuple and end is Ellipsis:
            return list_reader(reader_of(item))
        case (origin, items) if origin is tuple:
            return row_reader([reader_of(item) for item in items])
        case (origin, (key, item)) if origin is Mapping and key is str:
            return map_reader(reader_of(item))
        case (origin, (_, dtype)) if origin is np.ndarray:
            return array_reader(np.dtype(get_args(dtype)[0]), NUM_DIMS[name])
    raise TypeError(f"Nothing on the wire is a {hint}.")


def record_reader(cls: type[Any]) -> Reader:
    """Reads a map of exactly the fields of `cls`."""
    hints = get_type_hints(cls)
    readers = {field.name: reader_of(hints[field.name], field.name) for field in fields(cls)}

    def read(value: Any, where: str, limits: Limits) -> Any:
        check_names(value, readers.keys(), where)
        record = cls(**{name: reader(value[name], f"{where}.{name}", limits) for name, reader in readers.items()})
        for is_kept, name, allowed in RULES.get(cls, ()):
            check(is_kept(record, limits), f"{where}.{name}", allowed, value[name])
        return record

    return read


def check_names(value: Any, names: Any, where: str) -> None:
    """WireError unless `value` is a map of exactly these names."""
    check(isinstance(value, dict), where, f"a map of {', '.join(names)}", value)
    missing, foreign = names - value.keys(), value.keys() - names
    if missing or foreign:
        what = [f"{', '.join(sorted(missing))} missing"] * bool(missing)
        what += [f"{shown(sorted(foreign, key=str))} unknown"] * bool(foreign)
        raise WireError(f"{where}: must have exactly the fields {', '.join(names)}; {', '.join(what)}.")


def word_reader(words: tuple[str, ...]) -> Reader:
    """Reads one of some words."""

    def read(value: Any, where: str, _: Limits) -> Any:
        check(isinstance(value, str) and value in words, where, f"one of {', '.join(words)}", value)
        return value

    return read


def optional_reader(inner: Reader) -> Reader:
    """Reads nothing, or what `inner` reads."""
    return lambda value, where, limits: None if value is None else inner(value, where, limits)


def list_reader(item: Reader) -> Reader:
    """Reads a list of any length."""

    def read(value: Any, where: str, limits: Limits) -> tuple[Any, ...]:
        check(isinstance(value, list | tuple), where, "a list", value)
        return tuple(item(one, f"{where}[{i}]", limits) for i, one in enumerate(value))

    return read


def row_reader(items: list[Reader]) -> Reader:
    """Reads a list of a given length."""

    def read(value: Any, where: str, limits: Limits) -> tuple[Any, ...]:
        check(isinstance(value, list | tuple) and len(value) == len(items), where, f"a list of {len(items)}", value)
        return tuple(item(one, f"{where}[{i}]", limits) for i, (item, one) in enumerate(zip(items, value, strict=True)))

    return read


def map_reader(item: Reader) -> Reader:
    """Reads a map of any names."""

    def read(value: Any, where: str, limits: Limits) -> dict[str, Any]:
        check(isinstance(value, Mapping), where, "a map", value)
        return {read_text(key, where, limits): item(one, f"{where}.{key}", limits) for key, one in value.items()}

    return read


def array_reader(dtype: np.dtype[Any], num_dims: int) -> Reader:
    """Reads an array of finite numbers."""

    def read(value: Any, where: str, _: Limits) -> Any:
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else shown(value)
        is_fit = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == num_dims
        require(is_fit, f"{where}: must be an array of {dtype} of {num_dims} dimensions, got {found}.")
        require(np.isfinite(value).all(), f"{where}: must be finite, but is not everywhere.")
        return value

    return read
