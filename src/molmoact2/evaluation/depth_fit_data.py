"""Depth of a dataset's episodes for fitting a codec: which episodes, and what a fixed scale should span."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.scale import DepthScale
from molmoact2.depth.sources import ExpectedDepth
from molmoact2.evaluation.depth_fit import HeldOut
from molmoact2.evaluation.depth_sources import Source

SPAN = (0.1, 95.0)
"""Percentiles of depth between which a fixed scale lies by default. What is beyond, above a table, is mostly floor."""
LOOKED_AT = 32
"""Episodes from which the percentiles are taken."""
EVERY = 4
"""Of their pixels, each so-manieth row and column."""


@dataclass(frozen=True, kw_only=True)
class DepthEpisodes:
    """The depth of some episodes, read when it is asked for."""

    dataset: LeRobotDataset
    source: Source
    camera: str
    hold_out: int
    """Each so-manieth episode, the last of every group, is kept for measuring."""

    def __post_init__(self) -> None:
        count = len(self.dataset.episodes)
        allowed = f"from 2 to the {count} episodes of the dataset"
        require(2 <= self.hold_out <= count, f"Hold out every so-manieth episode, {allowed}; got {self.hold_out}.")

    @property
    def fitted(self) -> list[int]:
        """Episodes to fit to."""
        return [index for index in range(len(self.dataset.episodes)) if (index + 1) % self.hold_out]

    @property
    def held_out(self) -> list[int]:
        """Episodes to measure on."""
        return list(range(self.hold_out - 1, len(self.dataset.episodes), self.hold_out))

    def depth(self, index: int) -> NDArray[np.float32]:
        """Checked depth [frames, height, width] of one episode."""
        record = self.dataset.episodes[index]
        expected = ExpectedDepth(
            source=self.source.name,
            unit=self.source.unit,
            episode_index=record.episode_index,
            camera=self.camera,
            num_frames=record.length,
            size=self.dataset.image_size(self.camera),
        )
        return expected.check(self.source.episode(self.dataset, record, self.camera))

    def to_measure(self, indices: Iterable[int]) -> Iterator[HeldOut]:
        """Depth and images of episodes."""
        records = ((index, self.dataset.episodes[index].episode_index) for index in indices)
        return (
            HeldOut(depth=self.depth(index), images=self.dataset.episode_images(number, self.camera))
            for index, number in records
        )


def spread(indices: list[int], count: int) -> list[int]:
    """At most `count` of them, evenly over all."""
    return [
        indices[place]
        for place in np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int))
    ]


def span_of(episodes: DepthEpisodes) -> tuple[float, float]:
    """Limits for a fixed scale, from some of the episodes to fit to."""
    pixels = [episodes.depth(index)[:, ::EVERY, ::EVERY].ravel() for index in spread(episodes.fitted, LOOKED_AT)]
    low, high = np.percentile(np.concatenate(pixels), SPAN)
    require(low < high, f"All depth of {episodes.dataset.root} is {low:g}. Is {episodes.source.name} its depth?")
    return float(f"{low:.3g}"), float(f"{high:.3g}")


def choose_scale(kind: str, low: float | None, high: float | None, episodes: DepthEpisodes) -> DepthScale:
    """The scale that was asked for; a fixed one without limits gets those of the data."""
    wants_limits = kind == "fixed" and low is None and high is None
    low, high = span_of(episodes) if wants_limits else (low, high)
    return DepthScale(kind=kind, low=low, high=high)  # type: ignore[arg-type]
