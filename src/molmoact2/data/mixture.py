"""Mixtures: which datasets a policy learns from, and how much of each.

    like = "pre_post_train"             # start from a mixture that has a name; leave it out to start from nothing

    [[group]]                           # the group of this embodiment, or changes to the one of the named mixture
    embodiment = "yam_dual_molmoact2"
    rate = 0.3                          # share of the examples, of the sum over all groups
    datasets = ["yam/*"]                # folders, patterns of folders, hub ids

Within a group, every dataset counts by the square root of its frames, so that large ones do not drown the others.
"""

import glob
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmoact2.data.card import LABELS, RATE, TEXT, TEXTS, Kind, read_toml
from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.files import INFO_PATH
from molmoact2.data.mixtures import MIXTURES, UNPUBLISHED
from molmoact2.registry import unknown
from molmoact2.tokens.reading import is_a

GROUP_KINDS: dict[str, Kind] = {
    "embodiment": TEXT,
    "rate": RATE,
    "datasets": LABELS,
    "size_factor": Kind("a number from 0 on", lambda value: is_a(value, float) and value >= 0, float),
    "cameras": TEXTS,
    "cameras_alternative": TEXTS,
}
"""Field of a [[group]] -> what it may hold."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Datasets of one embodiment, which share statistics."""

    tag: str
    """Embodiment, as `molmoact2.data.card.card_for` takes it; empty lets every dataset say it."""
    rate: float
    """Share of the examples, relative to the other groups."""
    datasets: tuple[str, ...]
    """Folders, patterns of folders such as "yam/*", or hub ids."""
    size_factor: float | None = None
    """How much a dataset of n frames counts in the group: None sqrt(n), 0 the same as every other, f below 1
    sqrt(n · f), f from 1 on sqrt(f) whatever its size (training.md E.8)."""
    cameras: tuple[str, ...] = ()
    """Cameras in the order in which the policy sees them; empty leaves that to the card of each dataset."""
    cameras_alternative: tuple[str, ...] = ()
    """Cameras that take their place in half of the examples; empty for none."""

    def weight(self, num_frames: int) -> float:
        """How much a dataset of so many frames counts in this group."""
        match self.size_factor:
            case None:
                return math.sqrt(num_frames)
            case 0:
                return 1.0
            case factor:
                return math.sqrt(num_frames * factor if factor < 1 else factor)

    def folders(self) -> tuple[str, ...]:
        """The datasets, every pattern replaced by the folders it fits, in alphabetical order.

        Raises:
            ValueError: there are no datasets, a pattern fits none, or one is there twice.
        """
        what = UNPUBLISHED.get(self.tag, "its datasets")
        require(
            bool(self.datasets),
            f"The group {self.tag!r} has no datasets: the names of {what} are not known to us. Name those you have in "
            f'a mixture file: like = "...", then [[group]] with embodiment = "{self.tag}" and datasets = ["yours/*"].',
        )
        found = [match for entry in self.datasets for match in _matches(entry)]
        twice = sorted({name for name in found if found.count(name) > 1})
        require(not twice, f"The group {self.tag!r} names {', '.join(twice)} twice. Name each dataset once.")
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Groups with their shares."""

    name: str
    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        require(bool(self.groups), f"The mixture {self.name!r} has no groups.")
        rates = [group.rate for group in self.groups]
        is_right = all(0 < rate < math.inf for rate in rates)
        require(is_right, f"The mixture {self.name!r} needs rates above 0, got {rates}. Leave a group out instead.")


def read_mixture(name_or_path: str | Path) -> Mixture:
    """The mixture of that name, or the one that a TOML file describes.

    Folders in a file are relative to it.

    Raises:
        ValueError: there is no such name or file, or the file is malformed.
    """
    if str(name_or_path) in MIXTURES:
        return _mixture(str(name_or_path), MIXTURES[str(name_or_path)], Path("built-in"))
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise ValueError(f"{unknown('mixture', str(name_or_path), MIXTURES)} Or give the path of a .toml file.")
    return _mixture(path.stem, read_toml(path), path)


def _mixture(name: str, document: Mapping[str, Any], path: Path) -> Mixture:
    """Check and type what a mixture file says."""
    other = sorted(document.keys() - {"like", "group"})
    expect(not other, path, f"it has the unknown fields {other}", "It may have like and [[group]].")
    like, groups = document.get("like"), document.get("group", [])
    if like is not None and like not in MIXTURES:
        raise malformed(path, str(unknown("mixture", str(like), MIXTURES)), "Correct what it is like.")
    named = {group["embodiment"]: group for group in MIXTURES.get(str(like), {"group": []})["group"]}
    is_list = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
    expect(is_list, path, "its groups are not written as [[group]]", "Write [[group]] above each.")
    for group in groups:
        _check_group(path, group, named)
    tags = [group["embodiment"] for group in groups]
    expect(len(set(tags)) == len(tags), path, f"it has two groups of one embodiment: {tags}", "Join them.")
    for group in groups:
        known = named.get(group["embodiment"], {})
        named[group["embodiment"]] = {**known, **_beside(path.parent, group)}
    return Mixture(name=name, groups=tuple(_group(group) for group in named.values()))


def _beside(folder: Path, group: Mapping[str, Any]) -> dict[str, Any]:
    """A group whose folders and card are found from the file that names them; what is not there is a hub id."""
    card = group["embodiment"]
    located = {
        "embodiment": str(folder / card) if card.endswith((".toml", ".json")) else card,
        "datasets": [_locate(folder, entry) for entry in group.get("datasets", [])],
    }
    return {name: located.get(name, value) for name, value in group.items()}


def _locate(folder: Path, entry: str) -> str:
    is_local = glob.has_magic(entry) or (folder / entry).exists()
    return str(folder / entry) if is_local else entry


def _matches(entry: str) -> list[str]:
    """What an entry of a group stands for: itself, or the datasets that fit its pattern."""
    if not glob.has_magic(entry):
        return [entry]
    found = sorted(folder for folder in glob.glob(entry) if (Path(folder) / INFO_PATH).is_file())
    require(bool(found), f"No folder with a {INFO_PATH} fits {entry!r}. The pattern is of datasets, not of files.")
    return found


def _check_group(path: Path, group: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    fix = f"A group has the fields {', '.join(GROUP_KINDS)}."
    other = sorted(group.keys() - GROUP_KINDS.keys())
    expect(not other, path, f"a group has the unknown fields {other}", fix)
    for name, value in group.items():
        kind = GROUP_KINDS[name]
        expect(kind.is_right(value), path, f"{name!r} of a group must be {kind.words}, got {value!r}", fix)
    needed = {"embodiment"} | ({"rate", "datasets"} if group.get("embodiment") not in named else set())
    missing = sorted(needed - group.keys())
    expect(not missing, path, f"a group lacks {missing}", fix)


def _group(document: Mapping[str, Any]) -> Group:
    values = {name: GROUP_KINDS[name].convert(value) for name, value in document.items()}
    return Group(tag=values.pop("embodiment"), **values)
