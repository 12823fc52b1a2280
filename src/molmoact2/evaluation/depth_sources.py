"""Depth sources by their names on a command line: simulator, feature:NAME, anything[:MODEL]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.sources import DepthSource, Unit
from molmoact2.evaluation.simulated_depth import open_simulated_depth, recorded_attempts
from molmoact2.registry import unknown

Source: TypeAlias = DepthSource[LeRobotDataset, EpisodeRecord]


@dataclass(frozen=True, kw_only=True)
class SourceChoice:
    """A depth source that is not open yet; picklable, so that workers open their own."""

    name: str
    """What is noted in the labels."""
    unit: Unit
    open: Callable[[LeRobotDataset], Source]
    """Opens it for a dataset, which may load a network or start a simulator."""


def choose_source(words: str, dataset: LeRobotDataset, device: str) -> SourceChoice:
    """The source that `words` name, as far as can be said without opening it.

    Raises:
        ValueError: there is no such source, or it cannot know the depth of this dataset.
    """
    kind, _, argument = words.partition(":")
    if kind not in SOURCES:
        raise unknown("depth source", kind, SOURCES)
    return SOURCES[kind](dataset, argument, device)


def choose_simulator(dataset: LeRobotDataset, argument: str, _device: str) -> SourceChoice:
    """The simulator that recorded the dataset."""
    require(not argument, f"The source simulator takes no argument, got {argument!r}.")
    recorded_attempts(dataset)
    return SourceChoice(name="simulator", unit="m", open=open_simulated_depth)


SOURCES: dict[str, Callable[[LeRobotDataset, str, str], SourceChoice]] = {"simulator": choose_simulator}
