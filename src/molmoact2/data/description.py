"""What a dataset is, in a few facts: for people who have just been given one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from molmoact2.data.metadata import dimension_names
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.schema import ACTION, INDEX_COLUMNS, STATE
from molmoact2.embodiments import EMBODIMENTS, Embodiment

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A column, a camera, or what is stored beside them."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    """Of its dimensions, where it says."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a dataset is."""

    source: str
    version: str
    """Of the LeRobot format."""
    robot: str
    """As the dataset calls it; empty where it does not."""
    fits: tuple[str, ...]
    """Tags of the embodiments whose dimensions, cameras and rate it has."""
    fps: float
    num_episodes: int
    num_frames: int
    hours: float
    tasks: dict[str, int]
    """Instruction -> its number of frames, the most frequent first."""
    features: dict[str, Feature]
    """Columns, without the indices that every dataset has."""
    cameras: dict[str, tuple[int, int]]
    """Camera -> (height, width) in pixels."""
    not_read: dict[str, str]
    """Features that are neither numbers nor RGB cameras -> their dtype."""
    missing_videos: tuple[str, ...]
    """Video files that are not there."""
    episodes_without_video: tuple[int, ...]
    """Episodes that they belong to."""


def describe_dataset(dataset: LeRobotDataset) -> Description:
    """Gather the facts; nothing is decoded."""
    complete = set(dataset.episodes_with_video)
    columns = [name for name in dataset.column_names if name not in INDEX_COLUMNS]
    return Description(
        source=str(dataset.root),
        version=dataset.version,
        robot=str(dataset.info.get("robot_type") or ""),
        fits=fitting_embodiments(dataset),
        fps=dataset.fps,
        num_episodes=len(dataset.episodes),
        num_frames=len(dataset),
        hours=len(dataset) / dataset.fps / SECONDS_PER_HOUR,
        tasks=_frames_per_task(dataset),
        features={name: _feature(dataset.features[name]) for name in columns},
        cameras={camera: dataset.image_size(camera) for camera in dataset.cameras},
        not_read={name: dataset.features[name]["dtype"] for name in dataset.other_features},
        missing_videos=tuple(str(path) for path in dataset.missing_videos),
        episodes_without_video=tuple(
            record.episode_index for record in dataset.episodes if record.episode_index not in complete
        ),
    )


def fitting_embodiments(dataset: LeRobotDataset) -> tuple[str, ...]:
    """Tags of the embodiments that a dataset can be of, the one that it names itself first."""
    named = dataset.info.get("robot_type")
    tags = [tag for tag, embodiment in EMBODIMENTS.items() if _fits(embodiment, dataset)]
    return tuple(sorted(tags, key=lambda tag: tag != named))


def _fits(embodiment: Embodiment, dataset: LeRobotDataset) -> bool:
    """Whether the numbers of dimensions, the cameras and the rate agree."""
    shapes = [dataset.features.get(name, {}).get("shape") for name in (STATE, ACTION)]
    names = (embodiment.state_names, embodiment.action_names)
    cameras = embodiment.cameras or dataset.cameras
    return (
        shapes == [[len(dimensions)] for dimensions in names]
        and set(cameras) == set(dataset.cameras)
        and dataset.fps == embodiment.control_hz
    )


def _frames_per_task(dataset: LeRobotDataset) -> dict[str, int]:
    numbers, counts = np.unique(dataset.column("task_index"), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {dataset.tasks[int(numbers[index])]: int(counts[index]) for index in order}


def _feature(feature: Mapping[str, Any]) -> Feature:
    return Feature(dtype=feature["dtype"], shape=tuple(feature["shape"]), names=dimension_names(feature))
