"""Checked reading of the small JSON files that lie beside a checkpoint's weights.

A field that is missing or of the wrong type is refused with the file and field named; nothing falls back silently.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def require(holds: object, complaint: str, error: type[ValueError] = ValueError) -> None:
    """Raise `error` with this complaint unless the condition holds."""
    if not holds:
        raise error(complaint)


def parse_json(text: str | bytes, file: str) -> dict[str, Any]:
    """Return the JSON object in `text`; ValueError naming `file` if it is not JSON or not an object."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON: {error}. Is the file complete?") from error
    require(isinstance(document, dict), f"{file} must hold a JSON object, got {type(document).__name__}.")
    return document


def is_a(value: Any, kind: type) -> bool:
    """Whether `value` is of JSON type `kind`: a bool is no int, an int is a float."""
    kinds = {float: (int, float)}.get(kind, (kind,))
    return isinstance(value, kinds) and not (isinstance(value, bool) and kind is not bool)


def read_field(document: Mapping[str, Any], name: str, kind: type[T], file: str) -> T:
    """Return `document[name]`, which must be of type `kind`."""
    require(name in document, f"{file} lacks the field {name!r} ({kind.__name__}).")
    value = document[name]
    require(is_a(value, kind), f"{file}: {name!r} must be of type {kind.__name__}, got {value!r}.")
    return value


def read_optional(document: Mapping[str, Any], name: str, kind: type[T], file: str) -> T | None:
    """Return `document[name]`, or None where the field is absent or null."""
    return None if document.get(name) is None else read_field(document, name, kind, file)


def read_list(document: Mapping[str, Any], name: str, kind: type[T], file: str) -> tuple[T, ...]:
    """Return the list `document[name]` as a tuple; every element must be of type `kind`."""
    values = read_field(document, name, list, file)
    wrong = [value for value in values if not is_a(value, kind)]
    require(not wrong, f"{file}: every element of {name!r} must be of type {kind.__name__}, got {wrong[:1]}.")
    return tuple(values)
