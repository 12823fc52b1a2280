"""`robot.toml`: what a robot is connected to, read strictly."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.registry import unknown

Settings = TypeVar("Settings")
READERS = {".toml": tomllib.loads, ".json": json.loads}


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """The settings in a TOML or JSON file, as the frozen dataclass `kind`.

    ValueError names the field for one that is missing, not known or of another kind; OSError where nothing is readable.
    """
    if path.suffix not in READERS:
        raise ValueError(f"Settings of a robot are a .toml or .json file; got {path}.")
    try:
        table = READERS[path.suffix](path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as {path.suffix[1:]}: {error}") from None
    return settings_of(table, kind, where=str(path))


def settings_of(table: Any, kind: type[Settings], *, where: str) -> Settings:
    """`table` as the dataclass `kind`; ValueError as in `read_settings`."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} should be a table of settings; got {table!r}.")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass
    if strange := sorted(table.keys() - fields.keys()):
        raise ValueError(f"{where}: {unknown('setting', strange[0], fields)}")
    required = {name for name, field in fields.items() if is_required(field)}
    if missing := sorted(required - table.keys()):
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    hints = get_type_hints(kind)
    return kind(**{name: checked(value, hints[name], f"{where}: {name}") for name, value in table.items()})


def is_required(field: "dataclasses.Field[Any]") -> bool:
    """Whether a field has no default of either kind."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it is what the type hint says; whole numbers pass for floats, nothing passes for anything else."""
    arguments = get_args(hint)
    match get_origin(hint):
        case _ if hint is float and type(value) is int:
            return float(value)
        case _ if hint in (int, float, str, bool, NoneType) and type(value) is hint:
            return value
        case origin if origin is Literal and value in arguments:
            return value
        case origin if origin is dict and isinstance(value, dict):
            return {name: checked(item, arguments[1], f"{where}.{name}") for name, item in value.items()}
        case origin if origin is tuple and isinstance(value, list):
            return tuple(checked(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value))
    allowed = " or ".join(repr(argument) for argument in arguments) if get_origin(hint) is Literal else named(hint)
    raise ValueError(f"{where} should be {allowed}; got {value!r}.")


def named(hint: Any) -> str:
    """A type hint in words."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return words.get(hint) or {dict: "a table", tuple: "a list"}.get(get_origin(hint)) or str(hint)


def check_embodiment(tag: str, *, width: int) -> None:
    """ValueError for an embodiment that is not known, or that has not as many joints as the robot."""
    if tag not in EMBODIMENTS:
        raise unknown("embodiment", tag, EMBODIMENTS)
    if (known := len(EMBODIMENTS[tag].state_names)) != width:
        fitting = [other for other, embodiment in EMBODIMENTS.items() if len(embodiment.state_names) == width]
        raise ValueError(f"{tag} has {known} joints and this robot {width}. Such are {', '.join(fitting)}.")
