"""Depth sources by their names on a command line: simulator, feature:NAME, anything[:MODEL]."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from molmoact2.data.depth_features import FeatureDepth
from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.anything import DEFAULT_MODEL, load_anything, require_transformers
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


def choose_source(words: str, dataset: LeRobotDataset, cameras: tuple[str, ...], device: str) -> SourceChoice:
    """The source that `words` name, as far as can be said without opening it.

    Raises:
        ValueError: there is no such source, or it cannot know the depth of this dataset.
    """
    kind, _, argument = words.partition(":")
    if kind not in SOURCES:
        raise unknown("depth source", kind, SOURCES)
    return SOURCES[kind](argument, dataset, cameras, device)


def choose_simulator(argument: str, dataset: LeRobotDataset, _cameras: tuple[str, ...], _device: str) -> SourceChoice:
    """The simulator that recorded the dataset."""
    require(not argument, f"The source simulator takes no argument, got {argument!r}.")
    recorded_attempts(dataset)
    return SourceChoice(name="simulator", unit="m", open=open_simulated_depth)


def choose_feature(argument: str, dataset: LeRobotDataset, cameras: tuple[str, ...], _device: str) -> SourceChoice:
    """Depth that was recorded with the dataset."""
    require(bool(argument), f"Name the feature, as feature:NAME. Features: {', '.join(dataset.features)}.")
    source = FeatureDepth(feature=argument)
    source.check(dataset, cameras)
    return SourceChoice(name=source.name, unit=source.unit, open=partial(_same, source))


def choose_anything(argument: str, _dataset: LeRobotDataset, _cameras: tuple[str, ...], device: str) -> SourceChoice:
    """Depth-Anything-V2."""
    require_transformers()
    model = argument or DEFAULT_MODEL
    opened = partial(_loaded, model, device)
    return SourceChoice(name=f"anything:{model}", unit="inverse", open=opened)


def _same(source: Source, _dataset: LeRobotDataset) -> Source:
    return source


def _loaded(model: str, device: str, _dataset: LeRobotDataset) -> Source:
    return load_anything(model, device=device)


SOURCES: dict[str, Callable[[str, LeRobotDataset, tuple[str, ...], str], SourceChoice]] = {
    "simulator": choose_simulator,
    "feature": choose_feature,
    "anything": choose_anything,
}
"""Name -> what finds the source of a dataset, given what stands behind the colon, the cameras and the device."""
