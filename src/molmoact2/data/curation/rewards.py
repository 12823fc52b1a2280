"""How well episodes went, as a number from 0 to 1: from a reward model, or from a file of scores that one gave.

The paper gates whole datasets by TOPReward, which is not part of this package. Anything that turns the frames of an
episode and its instruction into a number can take its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import expect, require
from molmoact2.data.files import read_json
from molmoact2.data.quality.opening import evenly
from molmoact2.data.reader import LeRobotDataset
from molmoact2.registry import unknown

FIX = 'Write {"dataset name": {"0": 0.9, "1": 0.4}}: episode -> score from 0 to 1.'


class RewardModel(Protocol):
    """Judges an episode by its images."""

    def score(self, frames: NDArray[np.uint8], instruction: str, /) -> float:
        """How well `frames` [n, height, width, 3] RGB, in order, show that `instruction` is done: 0 to 1."""
        ...


class EpisodeRewards(Protocol):
    """Knows how well the episodes of datasets went."""

    def reward(self, dataset: LeRobotDataset, episode: int, /) -> float:
        """The score of one episode, 0 to 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelRewards:
    """Rewards by asking a model about evenly spaced frames of one camera."""

    model: RewardModel
    camera: str | None = None
    """The first camera by default."""
    num_frames: int = 12

    def reward(self, dataset: LeRobotDataset, episode: int, /) -> float:
        """Decode the frames, and ask. Raises ValueError for a camera that is not there or a score that is none."""
        camera = self.camera or next(iter(dataset.cameras), "")
        if camera not in dataset.cameras:
            raise unknown("camera", camera, dataset.cameras)
        record = dataset.episodes[episode]
        rows = record.from_index + evenly(record.length, self.num_frames)
        frames = [dataset.frame(int(row)) for row in rows]
        score = self.model.score(np.stack([frame.images[camera] for frame in frames]), frames[0].task)
        require(is_score(score), f"A reward model must give a number from 0 to 1, got {score!r} for episode {episode}.")
        return float(score)


@dataclass(frozen=True, kw_only=True)
class RecordedRewards:
    """Rewards from a JSON file: name of the dataset's folder -> episode -> score."""

    path: Path
    scores: dict[str, dict[int, float]]

    @classmethod
    def read(cls, path: Path) -> "RecordedRewards":
        """Read the file. Raises ValueError, naming it, unless all of it is scores."""
        content = read_json(path)
        is_right = all(isinstance(entry, dict) and _are_scores(entry) for entry in content.values())
        expect(is_right, path, "it is not scores from 0 to 1 by dataset and episode", FIX)
        scores = {name: {int(key): float(value) for key, value in entry.items()} for name, entry in content.items()}
        return cls(path=path, scores=scores)

    def reward(self, dataset: LeRobotDataset, episode: int, /) -> float:
        """Look the score up. Raises ValueError when the file has none for this episode."""
        name = dataset.root.resolve().name
        if name not in self.scores:
            raise unknown(f"dataset in {self.path}", name, self.scores)
        known = self.scores[name]
        expect(episode in known, self.path, f"it has no score for episode {episode} of {name!r}", FIX)
        return known[episode]


def _are_scores(entry: dict[str, Any]) -> bool:
    return all(key.isdecimal() and is_score(value) for key, value in entry.items())


def is_score(value: Any) -> bool:
    """Whether something is a number from 0 to 1."""
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    return bool(is_number and 0 <= value <= 1)


def sampled_episodes(num_episodes: int, *, num_samples: int, num_judged: int) -> Sequence[int]:
    """The last `num_judged` of `num_samples` evenly spaced episodes."""
    return evenly(num_episodes, num_samples)[-num_judged:].tolist()
