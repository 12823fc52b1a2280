"""From a dataset on disk to the `Material` that rules look at: all numbers, and a bounded sample of the images."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from molmoact2.data.datasets import open_dataset
from molmoact2.data.metadata import camera_keys
from molmoact2.data.pictures import video_path
from molmoact2.data.quality.material import Material, Sample, VideoLength, make_vector
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.schema import ACTION, CAMERA_PREFIX, STATE
from molmoact2.embodiments import EMBODIMENTS, Embodiment

SAMPLED_EPISODES = 12
SAMPLED_FRAMES = 6
"""Per sampled episode, evenly spaced from the first to the last frame."""


def open_material(source: str | Path, *, embodiment: Embodiment | None, images: bool) -> Material:
    """Read a dataset for inspection. Raises ValueError when it cannot be opened."""
    dataset = open_dataset(source)
    return material_of(dataset, embodiment=embodiment, images=images)


def material_of(dataset: LeRobotDataset, *, embodiment: Embodiment | None, images: bool) -> Material:
    """Lay out an opened dataset; without an embodiment the one of its robot type, where that is known."""
    embodiment = embodiment or EMBODIMENTS.get(str(dataset.info.get("robot_type")))
    names = {key: dimension_names(dataset.features[key]) for key in (STATE, ACTION)}
    looks = images and bool(dataset.cameras and dataset.episodes_with_video)
    return Material(
        source=str(dataset.root),
        fps=float(dataset.fps),
        state=make_vector("state", dataset.states, names[STATE], embodiment),
        action=make_vector("action", dataset.actions, names[ACTION], embodiment),
        timestamps=dataset.column("timestamp"),
        starts=np.array([record.from_index for record in dataset.episodes], np.int64),
        instructions=instructions_of(dataset),
        cameras=tuple(dataset.cameras),
        embodiment=embodiment,
        has_names=all(names.values()),
        samples=sample_images(dataset) if looks else (),
        video_lengths=video_lengths(dataset) if looks else (),
        missing_videos={str(path): episodes for path, episodes in dataset.missing_videos.items()},
        has_images=looks,
        facts=facts_of(dataset, embodiment),
    )


def facts_of(dataset: LeRobotDataset, embodiment: Embodiment | None) -> dict[str, Any]:
    """What the dataset is."""
    return {
        "robot type": dataset.info.get("robot_type"),
        "embodiment": embodiment.tag if embodiment else None,
        "codebase version": dataset.info.get("codebase_version"),
        "episodes": len(dataset.episodes),
        "frames": len(dataset),
        "frames per second": float(dataset.fps),
        "hours": round(len(dataset) / float(dataset.fps) / 3600, 3),
        "cameras": list(dataset.cameras),
    }


def dimension_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a vector's dimensions; none where the dataset does not give one for each.

    Recorders write them as a list, as a list in a list, or as an object of lists.
    """
    names = feature.get("names") or []
    parts = list(names.values()) if isinstance(names, Mapping) else list(names)
    flat = [name for part in parts for name in (part if isinstance(part, list) else [part])]
    fits = len(flat) == int(np.prod(feature["shape"])) and all(isinstance(name, str) for name in flat)
    return tuple(flat) if fits else ()


def instructions_of(dataset: LeRobotDataset) -> tuple[str, ...]:
    """The instruction at the first frame of each episode."""
    first = [record.from_index for record in dataset.episodes]
    return tuple(dataset.tasks[int(index)] for index in dataset.column("task_index")[first])


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers 0 to `count` - 1, evenly spaced, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def sample_images(dataset: LeRobotDataset) -> tuple[Sample, ...]:
    """Decode a few frames of a few episodes, all cameras."""
    complete = dataset.episodes_with_video
    episodes = [complete[index] for index in evenly(len(complete), SAMPLED_EPISODES)]
    console = Console(stderr=True)
    followed = track(episodes, "Looking at images", console=console, transient=True)
    return tuple(sample for episode in followed for sample in sample_episode(dataset, episode))


def sample_episode(dataset: LeRobotDataset, episode: int) -> Iterable[Sample]:
    """Decode a few frames of one episode: a sample per camera, or one that says why there are none."""
    record = dataset.episodes[episode]
    frames = evenly(record.length, SAMPLED_FRAMES)
    try:
        pictures = [dataset.frame(record.from_index + int(frame)).images for frame in frames]
    except ValueError as error:
        nothing = np.zeros((0, 1, 1, 3), np.uint8)
        return [Sample(camera="", episode=episode, frames=frames[:0], images=nothing, problem=str(error))]
    return [
        Sample(camera=camera, episode=episode, frames=frames, images=np.stack([each[camera] for each in pictures]))
        for camera in dataset.cameras
    ]


def video_lengths(dataset: LeRobotDataset) -> tuple[VideoLength, ...]:
    """Compare, from the headers of the files that are there, how much video there is with how much there should be."""
    fps, count = float(dataset.fps), cache(count_frames)
    spans = [
        (key, record, record.videos[key], count(video_path(dataset.root, dataset.info, key, record)))
        for key in camera_keys(dataset.info)
        for record in dataset.episodes
        if key in record.videos
    ]
    return tuple(
        VideoLength(
            camera=key.removeprefix(CAMERA_PREFIX),
            episode=record.episode_index,
            promised_frames=(span.to_s - span.from_s) * fps,
            stored_frames=num_frames - span.from_s * fps,
        )
        for key, record, span, num_frames in spans
    )


def count_frames(path: Path) -> float:
    """Frames of a video file as its header says; NaN where it does not, or cannot be read."""
    try:
        with av.open(str(path)) as container:
            return float(container.streams.video[0].frames or np.nan)
    except (FFmpegError, IndexError):
        return float(np.nan)
