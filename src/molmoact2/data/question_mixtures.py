"""Mixtures of questions: which files, and how much of each.

    like = "er"                     # the groups of a mixture that has a name, or leave it out and write your own
    folder = "er"                   # where its datasets are: er/sat/questions.jsonl, er/robopoint_qa/questions.jsonl, …
    without = ["sims_vsi"]          # those of them that you do not have

    [[group]]
    name = "kitchen"
    rate = 0.1                      # share of the examples, of the sum over all groups
    files = ["kitchen", "more/*.jsonl"]
    weight = 0.2                    # factor on the loss of its examples; 1 if it is left out
    most = 100_000                  # only the first so many lines of each file; all if it is left out

Within a group, every file counts by the square root of its questions (training.md E.8). Paths are found from the file.
"""

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmoact2.data.card import COUNT, LABELS, RATE, TEXT, Kind, read_toml
from molmoact2.data.errors import expect, malformed
from molmoact2.data.questions import WEIGHT
from molmoact2.registry import unknown

POINTING_WEIGHT = 0.2
"""On the loss of examples that point (training.md F.1)."""
ER: dict[str, dict[str, Any]] = {
    "spatial_image_qa": {"rate": 0.22, "datasets": {
        "sat": None, "robopoint_qa": 250_000, "refspatial_choice": 250_000, "refspatial_reasoning": 250_000,
        "vst_p_single": 200_000, "vsi_590k_image": 200_000}},
    "spatial_pointing": {"rate": 0.22, "weight": POINTING_WEIGHT, "datasets": {
        "robopoint_pointing": 700_000, "pixmo_points": 150_000, "refspatial_point": 80_000}},
    "spatial_detection": {"rate": 0.02, "datasets": {"robopoint_detection": None}},
    "spatial_video": {"rate": 0.20, "datasets": {"sims_vsi": None, "vsi_590k_video": 300_000, "robovqa": 200_000}},
    "spatial_multi_image": {"rate": 0.18, "datasets": {"sensenova_si": 500_000, "vst_p_multi": 200_000}},
    "abstract_reasoning": {"rate": 0.08, "datasets": {"clevr": 50_000, "grid3d": 100_000}},
    "nlp": {"rate": 0.08, "datasets": {"tulu4": None}},
}  # fmt: skip
"""The mixture that Molmo2-ER learned from (training.md H, `spatial-all-v4`; paper section 2): group -> its share and
its datasets, each with how many of its first examples are used, None for all. By the paper sat has 175,000 examples,
sims_vsi 203,000, robopoint_detection 100,000 and the text 980,000. A video has to be given as up to five frames."""
MIXTURES = {"er": ER}

FIELDS: dict[str, Kind] = {"like": TEXT, "folder": TEXT, "without": LABELS}
GROUP_FIELDS: dict[str, Kind] = {"name": TEXT, "rate": RATE, "files": LABELS, "weight": WEIGHT, "most": COUNT}


@dataclass(frozen=True, kw_only=True)
class QuestionGroup:
    """Files that share a rate."""

    name: str
    rate: float
    """Share of the examples, relative to the other groups."""
    files: Mapping[Path, int | None]
    """Files of questions, or folders with one -> how many of its first lines are used, None for all."""
    weight: float = 1.0
    """Factor on the loss of its examples."""


def read_question_mixture(path: Path) -> tuple[QuestionGroup, ...]:
    """The groups that a TOML file describes.

    Raises:
        ValueError: naming the file, when it is missing or malformed, or a dataset is not there.
    """
    said = read_toml(path)
    groups = said.pop("group", [])
    is_list = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
    expect(is_list, path, "its groups are not written as [[group]]", "Write [[group]] above each.")
    _check(path, said, FIELDS, "it", needed=set())
    for group in groups:
        _check(path, group, GROUP_FIELDS, "a group", needed={"name", "rate", "files"})
    made = [*_named_groups(path, said), *(_group(path, group) for group in groups)]
    names = [group.name for group in made]
    is_right = bool(names) and len(set(names)) == len(names)
    expect(is_right, path, f"it needs groups of different names, and has {names}", "Write [[group]].")
    return tuple(made)


def _check(path: Path, said: Mapping[str, Any], kinds: Mapping[str, Kind], what: str, *, needed: set[str]) -> None:
    """ValueError unless all that is said is known and of the right kind, and all that is needed is said."""
    fix = f"It may have {', '.join(kinds)}."
    other, missing = sorted(said.keys() - kinds.keys()), sorted(needed - said.keys())
    expect(not other, path, f"{what} has the unknown fields {other}", fix)
    expect(not missing, path, f"{what} lacks {missing}", fix)
    for name, value in said.items():
        expect(kinds[name].is_right(value), path, f"{name!r} of {what} must be {kinds[name].words}, got {value!r}", fix)


def _named_groups(path: Path, said: Mapping[str, Any]) -> list[QuestionGroup]:
    """The groups of the mixture that a file is like, from the datasets that are in its folder."""
    like, without = said.get("like"), said.get("without", [])
    if like is None:
        expect(not said, path, f"{sorted(said)} say nothing without like", f"Known: {', '.join(MIXTURES)}.")
        return []
    if like not in MIXTURES:
        raise malformed(path, str(unknown("mixture of questions", like, MIXTURES)), "Correct what it is like.")
    expect("folder" in said, path, f"it does not say in which folder the datasets of {like!r} are", "Write folder = ….")
    datasets = [name for group in MIXTURES[like].values() for name in group["datasets"]]
    for name in without:
        expect(name in datasets, path, str(unknown("dataset", name, datasets)), "Correct without.")
    folder = path.parent / said["folder"]
    missing = [name for name in datasets if name not in without and not (folder / name).is_dir()]
    expect(not missing, path, f"{folder} has no {', '.join(missing)}", f"Get them, or write without = {missing}.")
    kept = {
        name: {folder / dataset: most for dataset, most in group["datasets"].items() if dataset not in without}
        for name, group in MIXTURES[like].items()
    }
    return [
        QuestionGroup(name=name, rate=group["rate"], files=kept[name], weight=group.get("weight", 1.0))
        for name, group in MIXTURES[like].items()
        if kept[name]
    ]


def _group(path: Path, said: Mapping[str, Any]) -> QuestionGroup:
    """A group that a file writes down, its patterns replaced by what they fit."""
    values = {name: GROUP_FIELDS[name].convert(value) for name, value in said.items()}
    most, files = values.pop("most", None), values.pop("files")
    found = {match: most for entry in files for match in matches(path, entry)}
    expect(bool(found), path, f"the group {values['name']!r} names no files", "Name files or folders.")
    return QuestionGroup(files=found, **values)


def matches(path: Path, entry: str) -> list[Path]:
    """The files and folders beside `path` that fit a pattern, in alphabetical order, or the one that is named."""
    found = sorted(glob.glob(entry, root_dir=path.parent)) if glob.has_magic(entry) else [entry]
    expect(bool(found), path, f"no file and no folder fits {entry!r}", "Patterns are relative to this file.")
    return [path.parent / name for name in found]
