"""Normalised action chunks of a mixture of datasets, one dataset in memory at a time.

A chunk is one second from some frame on, at the dataset's own rate and width; beyond the end of an episode the last
action is repeated, as in training. Values are normalised with exact quantiles over all datasets of an embodiment (paper
section 3): 1 and 99 % become -1 and 1. A gripper that is in [0, 1] already is passed through.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.card import card_for
from molmoact2.data.chunks import action_chunks
from molmoact2.data.datasets import open_dataset
from molmoact2.data.errors import require
from molmoact2.data.mixture import Group, Mixture, read_mixture
from molmoact2.data.quantiles import pooled
from molmoact2.embodiments import Embodiment
from molmoact2.processing.normalize import Scaling, scaling_of

CHUNK_S = 1.0
BATCH = 512
"""Chunks that are handed out together."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Which episodes count, by their number in the dataset."""

    every: int = 0
    """Every so-many-th is set apart; 0 sets none apart."""
    are_apart: bool = False
    """Take those that were set apart, instead of the others."""

    def __post_init__(self) -> None:
        is_sensible = self.every >= 2 or (self.every == 0 and not self.are_apart)
        require(is_sensible, f"Every so-many-th episode can be set apart from every 2nd on, got {self.every}.")

    def rows(self, episode_ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of their frames; `episode_ends` [frames] holds the row after each frame's episode."""
        number = np.unique(episode_ends, return_inverse=True)[1]
        is_apart = number % max(self.every, 1) == self.every - 1
        return np.flatnonzero(is_apart == self.are_apart)


ALL = Episodes()


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The actions of one dataset."""

    robot: Embodiment
    rate_hz: float
    actions: NDArray[np.float32]
    """[frames, action_dim] in robot units."""
    episode_ends: NDArray[np.int64]
    """[frames] the row just after the last one of each frame's episode."""

    @property
    def horizon(self) -> int:
        """Steps of one second."""
        return max(1, round(CHUNK_S * self.rate_hz))

    def chunks(self, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, horizon, action_dim] in robot units."""
        return action_chunks(self.actions, starts, self.episode_ends[starts], self.horizon)[0]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a dataset is asked for."""

    source: str
    num_frames: int
    """Frames of the episodes that count."""
    horizon: int
    num_chunks: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkSource:
    """The datasets of one embodiment."""

    group: Group
    parts: tuple[Part, ...]
    scaling: Scaling
    """Robot units to [-1, 1], the same for all of them."""
    robot: Embodiment

    @property
    def num_chunks(self) -> int:
        """Chunks that it is asked for."""
        return sum(part.num_chunks for part in self.parts)

    def asked_for(self, num_chunks: int) -> "ChunkSource":
        """The same, asked for so many chunks."""
        counts = apportion([self.group.weight(part.num_frames) for part in self.parts], num_chunks)
        parts = [replace(part, num_chunks=int(count)) for part, count in zip(self.parts, counts, strict=True)]
        return replace(self, parts=tuple(parts))


def choose_mixture(mixture: str | None, datasets: Sequence[str], embodiment: str | None) -> Mixture:
    """A mixture by its name or file, or one of datasets of a single embodiment; ValueError unless it is one of both."""
    require(bool(mixture) != bool(datasets), "Name either a mixture or datasets.")
    require(not (mixture and embodiment), "A mixture says itself of which embodiments its datasets are.")
    if mixture:
        return read_mixture(mixture)
    return Mixture(name="datasets", groups=(Group(tag=embodiment or "", rate=1.0, datasets=tuple(datasets)),))


def read_recording(source: str, embodiment: str | None) -> Recording:
    """The actions of a dataset: a folder or a hub id, of an embodiment as `card_for` takes it."""
    dataset = open_dataset(source)
    card = card_for(dataset, embodiment or None)
    actions = card.actions(dataset)
    require(bool(np.isfinite(actions).all()), f"{source} holds actions that are NaN or infinite.")
    return Recording(
        robot=card.robot, rate_hz=dataset.fps, actions=actions, episode_ends=np.asarray(dataset.episode_ends)
    )


@dataclass(frozen=True, kw_only=True)
class _ActionsOf:
    """The actions of a group's datasets, read anew each time they are gone through: one dataset is in memory."""

    group: Group

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for source in self.group.folders():
            yield read_recording(source, self.group.tag).actions


def open_sources(mixture: Mixture, *, num_chunks: int, episodes: Episodes = ALL) -> tuple[ChunkSource, ...]:
    """What each embodiment of a mixture contributes to `num_chunks` chunks, or to one per frame if those are fewer.

    Groups share them by their rates, datasets of a group by the weights of their frames. Statistics are always over all
    episodes.

    Raises:
        ValueError: for datasets that cannot be read, have no frames that count, or have grippers beyond [-1, 1].
    """
    sources = [_source(group, episodes) for group in mixture.groups]
    num_frames = sum(part.num_frames for source in sources for part in source.parts)
    shares = apportion([group.rate for group in mixture.groups], min(num_chunks, num_frames))
    return tuple(source.asked_for(int(share)) for source, share in zip(sources, shares, strict=True))


def apportion(weights: Sequence[float], total: int) -> NDArray[np.int64]:
    """Whole numbers in proportion to `weights` that add up to `total`; remainders go to the largest fractions."""
    exact = np.array(weights) / sum(weights) * total
    whole = np.floor(exact).astype(np.int64)
    late = np.argsort(whole - exact, kind="stable")[: total - whole.sum()]
    whole[late] += 1
    return whole


def chunk_batches(
    sources: Sequence[ChunkSource], *, seed: int, episodes: Episodes = ALL
) -> Iterator[NDArray[np.float32]]:
    """The chunks, normalised, [b, horizon, action_dim] at a time; the same for the same seed.

    Chunks of a dataset are drawn without repetition, until every frame has had its turn.
    """
    for place, source in enumerate(sources):
        for number, part in enumerate(source.parts):
            for chunks in _raw_batches(source, part, np.random.default_rng((seed, place, number)), episodes):
                yield source.scaling.normalize(chunks)


def chunks_in_order(source: ChunkSource) -> Iterator[NDArray[np.float32]]:
    """The normalised chunk from every frame on of every dataset, in order, [b, horizon, action_dim] at a time."""
    for part in source.parts:
        recording = read_recording(part.source, source.group.tag)
        for rows in np.split(np.arange(len(recording.actions)), range(BATCH, len(recording.actions), BATCH)):
            yield source.scaling.normalize(recording.chunks(rows))


def _raw_batches(
    source: ChunkSource, part: Part, rng: np.random.Generator, episodes: Episodes
) -> Iterator[NDArray[np.float32]]:
    recording = read_recording(part.source, source.group.tag)
    rows = episodes.rows(recording.episode_ends)
    drawn = np.resize(rng.permutation(rows), part.num_chunks)
    for start in range(0, len(drawn), BATCH):
        yield recording.chunks(drawn[start : start + BATCH])


def _source(group: Group, episodes: Episodes) -> ChunkSource:
    robots, parts = [], []
    for source in group.folders():
        recording = read_recording(source, group.tag)
        num_frames = len(episodes.rows(recording.episode_ends))
        require(num_frames > 0, f"{source} has no frames in the episodes that count.")
        parts.append(Part(source=source, num_frames=num_frames, horizon=recording.horizon))
        robots.append(recording.robot)
    names = sorted({robot.action_names for robot in robots})
    require(len(names) == 1, f"The datasets of {group.tag!r} have different action dimensions: {names}.")
    robot = robots[0]
    return ChunkSource(group=group, parts=tuple(parts), scaling=_scaling(group, robot), robot=robot)


def _scaling(group: Group, robot: Embodiment) -> Scaling:
    """The map of 1 and 99 % over all datasets of a group to -1 and 1."""
    statistics = pooled(_ActionsOf(group=group))
    is_scaled = np.array([robot.normalize_gripper or "gripper" not in name.lower() for name in robot.action_names])
    largest = np.maximum(-statistics["min"], statistics["max"]) * ~is_scaled
    require(
        bool((largest <= 1).all()),
        f"{robot.action_names[largest.argmax()]} of {group.tag!r} is passed through and must be within [-1, 1], but "
        f"{largest.max():g} is in the data. Set normalize_gripper = true in the embodiment's card.",
    )
    return scaling_of(
        statistics.__getitem__, mode="q01_q99", scaled=is_scaled, constant=statistics["min"] == statistics["max"]
    )
