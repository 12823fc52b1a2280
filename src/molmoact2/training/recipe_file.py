"""Recipes in a file: a recipe that has a name, and what differs from it, section by section.

    like = "fine-tune"                         # required: where all that is not said comes from
    action_mode = "continuous"
    mixture = "my-robots.toml"                 # a file is looked for beside the recipe

    [train]
    dtype = "float32"

    [trainable]
    preset = "lora"                            # one of `trainable.PRESETS`; fields beside it change it
    lora_rank = 32

    [stage]                                    # [stage.NAME] where the named recipe has several
    num_steps = 2_000
    examples_per_step = {robot = 24, questions = 8}
    tokens_per_row = "none"                    # TOML has no word for nothing

    [stage.optimizer]                          # likewise [stage.losses], [stage.augmentation]
    learning_rate = 5e-5

    [expert]                                   # fields of `ExpertConfig` for an expert that is added
    conditioning = "head_kv"

The fields are those of the classes that hold them; nothing of a file is passed over.
"""

import builtins
import sys
import types
import typing
from collections import abc
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from molmoact2.data.card import read_toml
from molmoact2.model.config import ExpertConfig
from molmoact2.registry import unknown
from molmoact2.tokens.reading import is_a, require
from molmoact2.training.config import StageConfig
from molmoact2.training.recipes import RECIPES, Recipe
from molmoact2.training.trainable import TrainableConfig, find_trainable

LIKE, PRESET, NOTHING = "like", "preset", "none"
ELSEWHERE = ("stages", "trainable")
"""Fields of `TrainConfig` that have sections of their own."""
WORDS = {
    int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", tuple: "a list",
    abc.Mapping: "a table of numbers", types.UnionType: f'what it holds now or "{NOTHING}"',
}  # fmt: skip

T = TypeVar("T")


def read_recipe(name_or_path: str | Path) -> Recipe:
    """The recipe of that name, or the one that a TOML file describes.

    Raises:
        ValueError: there is no such name or file, or something in the file is unknown, of another type or cannot be.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        name = str(name_or_path)
        require(name in RECIPES, f"{unknown('recipe', name, RECIPES)} Or give the path of a .toml file.")
        return RECIPES[name]
    document = read_toml(path)
    try:
        return _recipe(document, path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _recipe(document: Mapping[str, Any], folder: Path) -> Recipe:
    """What a recipe file says, on top of what it is like."""
    like = document.get(LIKE)
    require(isinstance(like, str), f"It must say {LIKE} = one of {', '.join(RECIPES)}, got {like!r}.")
    require(like in RECIPES, str(unknown("recipe", str(like), RECIPES)))
    recipe = RECIPES[str(like)]
    sections = {LIKE: like, "train": {}, "stage": {}, "trainable": {}, "expert": {}, **document}
    for name in ("train", "stage", "trainable", "expert"):
        require(isinstance(sections[name], dict), f"{name} must be a section [{name}], got {sections[name]!r}.")
    train = changed(recipe.train, sections.pop("train"), "train", but=ELSEWHERE)
    train = replace(
        train,
        stages=_stages(recipe.train.stages, sections.pop("stage")),
        trainable=_trainable(recipe.train.trainable, sections.pop("trainable")),
    )
    expert = {**recipe.expert, **changes(ExpertConfig, sections.pop("expert"), "expert")}
    del sections[LIKE]
    recipe = changed(replace(recipe, train=train, expert=expert), sections, "", but=("train", "expert"))
    mixture = str(sections.get("mixture"))
    return replace(recipe, mixture=str(folder / mixture)) if mixture.endswith(".toml") else recipe


def _stages(stages: tuple[StageConfig, ...], section: Mapping[str, Any]) -> tuple[StageConfig, ...]:
    """The stages, changed by [stage], or by [stage.NAME] where there are several."""
    if len(stages) == 1:
        return (changed(stages[0], section, "stage"),)
    names = [stage.name for stage in stages]
    for name, table in section.items():
        several = f"There are several stages: write [stage.NAME]. {unknown('stage', name, names)}"
        require(name in names and isinstance(table, dict), several)
    return tuple(changed(stage, section.get(stage.name, {}), f"stage.{stage.name}") for stage in stages)


def _trainable(config: TrainableConfig, section: Mapping[str, Any]) -> TrainableConfig:
    """What trains: a preset, or what the named recipe has, with some fields changed."""
    said = dict(section)
    preset = said.pop(PRESET, None)
    require(preset is None or isinstance(preset, str), f"trainable.{PRESET} must be a text, got {preset!r}.")
    return changed(config if preset is None else find_trainable(preset), said, "trainable")


def changed(value: T, table: Mapping[str, Any], place: str, *, but: tuple[str, ...] = ()) -> T:
    """A dataclass with the fields that `table` names, and the fields of those that are dataclasses; not those of `but`.

    Raises:
        ValueError: naming `place` and field, for a name or value that is not right.
    """
    said = changes(type(value), table, place, now=vars(value), but=but)
    try:
        return replace(value, **said)  # type: ignore[type-var]  # every value is a dataclass
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def changes(
    cls: type, table: Mapping[str, Any], place: str, *, now: Mapping[str, Any] | None = None, but: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Field of `cls` -> what `table` says about it, checked and typed; `now` are the values that it changes."""
    known = {field.name for field in fields(cls)} - {*but}
    for name in table:
        require(name in known, str(unknown(f"field of {place or 'a recipe'}", name, known)))
    hints, old = typing.get_type_hints(cls), now or {}
    return {
        name: typed(hints[name], given, old.get(name), f"{place}.{name}".lstrip(".")) for name, given in table.items()
    }


def typed(hint: Any, given: Any, now: Any, place: str) -> Any:
    """What a file gives for a field, as the type that the field has; ValueError if it is none."""
    arguments = typing.get_args(hint)
    match typing.get_origin(hint) or hint:
        case types.UnionType:
            return None if given == NOTHING else typed(arguments[0], given, now, place)
        case typing.Literal if given in arguments:
            return given
        case typing.Literal:
            raise unknown(place, str(given), arguments)
        case abc.Mapping if isinstance(given, dict):
            return {name: typed(arguments[1], value, None, f"{place}.{name}") for name, value in given.items()}
        case builtins.tuple if isinstance(given, list):
            require(... in arguments or len(given) == len(arguments),
                    f"{place} must be a list of {len(arguments)}, got {given!r}.")  # fmt: skip
            return tuple(typed(arguments[0], item, None, place) for item in given)
        case kind if is_dataclass(kind) and isinstance(given, dict):
            return changed(kind() if now is None else now, given, place)  # type: ignore[operator]
        case kind if is_a(given, kind) and (kind is not float or abs(given) <= sys.float_info.max):
            return kind(given)
    words = WORDS.get(typing.get_origin(hint) or hint, "a section")
    raise ValueError(f"{place} must be {words}, got {given!r}.")
