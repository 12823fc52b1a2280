"""Gates: reasons not to use a whole dataset, and reasons not to use an episode (paper section 1).

A gate is a function that returns why something is dropped, "" or nothing where it is not. The rules are those of the
paper for SO-100/101 (schema and NaN checks, no evaluation sets, licence, reward of three episodes) and for DROID
(success, at least one valid instruction). What the paper leaves open is a setting, with our default.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from molmoact2.data.curation.idle import IdleRule
from molmoact2.data.curation.rewards import EpisodeRewards, sampled_episodes
from molmoact2.data.errors import require
from molmoact2.data.quality import schema
from molmoact2.data.quality.findings import Severity, findings_of
from molmoact2.data.quality.language import is_valid
from molmoact2.data.quality.material import Material
from molmoact2.data.reader import LeRobotDataset

EVALUATION_NAMES = r"(^|[/_.-])(eval|evaluation|evals)([/_.-]|\d|$)"
"""Names of datasets that hold what a policy did, not what a person showed."""
SUCCESS_COLUMNS = ("success", "is_success", "next.success", "episode_success")
"""Columns that say whether an episode went well: true in some frame of it."""
LICENCE_LINE = re.compile(r"^licen[cs]e:\s*[\"']?([\w.+-]+)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Curation:
    """What is asked of datasets, episodes and frames."""

    dropped_names: str = EVALUATION_NAMES
    """Datasets whose name this regular expression finds are dropped."""
    licences: tuple[str, ...] = ()
    """Licences that a dataset may have, in lower case; empty allows any, also none."""
    rewards: EpisodeRewards | None = None
    least_reward: float = 0.5
    """What the mean reward of the judged episodes of a dataset must reach. The paper's value is not stated."""
    num_sampled: int = 8
    """Evenly spaced episodes that are sampled of a dataset; the paper does not say how many."""
    num_judged: int = 3
    """The last so many of them are judged, as in the paper."""
    idle: IdleRule = field(default_factory=IdleRule)
    drops_idle: bool = False
    """Whether pauses are cut out. Episodes shorter than the shortest span are dropped in any case."""

    def __post_init__(self) -> None:
        require(0 <= self.least_reward <= 1, f"A reward is 0 to 1, got the threshold {self.least_reward}.")
        is_right = 1 <= self.num_judged <= self.num_sampled
        require(is_right, f"Judge 1 to {self.num_sampled} of the sampled episodes, got {self.num_judged}.")
        try:
            re.compile(self.dropped_names)
        except re.error as error:
            raise ValueError(f"{self.dropped_names!r} is not a regular expression: {error}.") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A dataset that is judged."""

    name: str
    """As it was given: folder or hub id."""
    dataset: LeRobotDataset
    material: Material


def evaluation_name(candidate: Candidate, curation: Curation) -> str:
    """A set of what a policy did, by its name."""
    name = Path(candidate.name).name
    return f"the name {name!r} is that of an evaluation" if re.search(curation.dropped_names, name.lower()) else ""


def licence(candidate: Candidate, curation: Curation) -> str:
    """A licence that is not among the allowed ones."""
    found = licence_of(candidate.dataset)
    is_fine = not curation.licences or found in curation.licences
    return "" if is_fine else f"the licence is {found or 'not stated'}, allowed are {', '.join(curation.licences)}"


def licence_of(dataset: LeRobotDataset) -> str:
    """The licence that `meta/info.json` or the head of README.md states, in lower case; "" for none."""
    readme = dataset.root / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    stated = LICENCE_LINE.search(text)
    return str(dataset.info.get("license") or (stated.group(1) if stated else "")).lower()


def unfit_schema(candidate: Candidate, curation: Curation) -> str:  # noqa: ARG001
    """Another robot's dimensions or order, or no camera."""
    material = candidate.material
    asked = [rule for rule in schema.RULES if not set(rule.needs) & set(material.gaps)]
    found = [finding for rule in asked for finding in findings_of(rule, material)]
    errors = [f for f in found if f.severity is Severity.ERROR and f.rule != "missing_video"]
    return "; ".join(f"{error.title.lower()}: {error.measured}" for error in errors)


def low_reward(candidate: Candidate, curation: Curation) -> str:
    """A mean reward of the judged episodes below the threshold."""
    dataset, rewards = candidate.dataset, curation.rewards
    complete = dataset.episodes_with_video
    judged = sampled_episodes(len(complete), num_samples=curation.num_sampled, num_judged=curation.num_judged)
    scores = [rewards.reward(dataset, complete[index]) for index in judged] if rewards else [1.0]
    mean = float(np.mean(scores)) if scores else 0.0
    shown = ", ".join(f"{score:.2f}" for score in scores)
    return (
        "" if mean >= curation.least_reward else f"the mean reward is {mean:.2f} ({shown}), not {curation.least_reward}"
    )


DATASET_GATES: Mapping[str, Callable[[Candidate, Curation], str]] = {
    "evaluation set": evaluation_name,
    "licence": licence,
    "schema": unfit_schema,
    "reward": low_reward,
}
"""Rule -> why a whole dataset is dropped; the cheap ones first."""


def no_video(candidate: Candidate) -> dict[int, str]:
    """Episodes whose video is not there."""
    complete = set(candidate.dataset.episodes_with_video)
    return {e: "a video file is missing" for e in range(candidate.material.num_episodes) if e not in complete}


def not_finite(candidate: Candidate) -> dict[int, str]:
    """Episodes with NaN or infinity in any column."""
    material, dataset = candidate.material, candidate.dataset
    is_bad = np.zeros(material.num_frames, bool)
    for name in dataset.column_names:
        column = dataset.column(name)
        is_bad |= ~np.isfinite(column).reshape(material.num_frames, -1).all(axis=1)
    return dict.fromkeys(np.unique(material.episode_of[is_bad]).tolist(), "it holds NaN or infinity")


def no_success(candidate: Candidate) -> dict[int, str]:
    """Episodes whose success flag is never true, where the dataset has such a column."""
    material = candidate.material
    columns = [name for name in SUCCESS_COLUMNS if name in candidate.dataset.column_names]
    ends_well = np.ones(material.num_episodes, bool)
    for name in columns:
        flags = candidate.dataset.column(name).reshape(material.num_frames, -1) != 0
        ends_well &= material.per_episode(np.logical_or, flags).any(axis=1)
    return dict.fromkeys(np.flatnonzero(~ends_well).tolist(), f"{', '.join(columns)} is never true")


def no_instruction(candidate: Candidate) -> dict[int, str]:
    """Episodes none of whose instructions says anything."""
    dataset, said = candidate.dataset, candidate.material.instructions
    texts = {record.episode_index: {*record.tasks, said[record.episode_index]} for record in dataset.episodes}
    return {episode: f"it says {sorted(each)}" for episode, each in texts.items() if not any(map(is_valid, each))}


EPISODE_GATES: Mapping[str, Callable[[Candidate], dict[int, str]]] = {
    "missing video": no_video,
    "not finite": not_finite,
    "no success": no_success,
    "no instruction": no_instruction,
}
"""Rule -> the episodes that it drops, and why."""
