"""Reading a LeRobot dataset, v3.0 or v2.1, from a local folder.

The numeric columns are held in memory; images are decoded when they are asked for, by their time in the video or by
their row in the data files. For training on random frames, decode everything once with `molmoact2.data.frame_cache`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2 import registry
from molmoact2.data.columns import read_columns
from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import expect, require
from molmoact2.data.layouts import LAYOUTS
from molmoact2.data.metadata import camera_keys, picture_size, read_info
from molmoact2.data.pictures import Pictures, video_path
from molmoact2.data.schema import ACTION, CAMERA_PREFIX, INDEX_COLUMNS, STATE, Episode
from molmoact2.data.statistics import Statistics, column_statistics


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One moment of a demonstration."""

    images: Mapping[str, NDArray[np.uint8]]
    """Camera -> [height, width, 3] RGB."""
    state: NDArray[np.float32]
    """[state_dim] in robot units."""
    action: NDArray[np.float32]
    """[action_dim] in robot units."""
    task: str
    """The instruction."""
    episode_index: int
    frame_index: int
    """Frames since the start of the episode."""
    timestamp_s: float
    """Seconds since the start of the episode."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Further columns."""


class LeRobotDataset:
    """A dataset on disk. Everything is checked when it is opened, except the pictures, checked as they are read."""

    def __init__(self, root: str | Path) -> None:
        """Open the dataset at `root`.

        A dataset whose recording was interrupted opens with the episodes that were finished. Where videos are missing,
        the columns can be read all the same; `episodes_with_video` lists the episodes that are complete.

        Raises:
            ValueError: naming the file and what to do, when something is missing, damaged or contradictory.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        self._layout = LAYOUTS[self.info["codebase_version"]]
        self._table = self._layout.read_episodes(self.root, self.info)
        self.episodes: tuple[EpisodeRecord, ...] = self._table.records
        """The table of episodes."""
        self._columns = read_columns(self.root, self.info, self.episodes)
        self.tasks: dict[int, str] = self._layout.read_tasks(self.root) if self.episodes else {}
        """Task index -> instruction."""
        unknown = set(np.unique(self.column("task_index")).tolist()) - set(self.tasks)
        problem = f"it has no instruction for the task indices {sorted(unknown)[:10]}"
        expect(not unknown, self.root / self._layout.tasks_path, problem)
        self._pictures = Pictures(self.root, self.info)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.info["fps"]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Feature -> dtype, shape and names, as in `info.json`."""
        return self.info["features"]

    @property
    def version(self) -> str:
        """The version of the format, "v3.0" or "v2.1"."""
        return self.info["codebase_version"]

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Names of the RGB cameras, without the prefix `observation.images.`, in the order of the features."""
        return tuple(key.removeprefix(CAMERA_PREFIX) for key in camera_keys(self.info))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the numeric columns, in the order of the features."""
        return tuple(self._columns)

    @property
    def other_features(self) -> tuple[str, ...]:
        """Features that are neither numbers nor RGB cameras (texts, sound, depth maps); they are not read."""
        read = {*self._columns, *self._keys.values()}
        return tuple(name for name in self.features if name not in read)

    @cached_property
    def missing_videos(self) -> dict[Path, tuple[int, ...]]:
        """Video files of cameras that are not there -> the episodes that they would hold."""
        episodes: dict[Path, list[int]] = {}
        for record in self.episodes:
            for key in set(record.videos) & set(self._keys.values()):
                episodes.setdefault(video_path(self.root, self.info, key, record), []).append(record.episode_index)
        return {path: tuple(found) for path, found in sorted(episodes.items()) if not path.is_file()}

    @cached_property
    def episodes_with_video(self) -> tuple[int, ...]:
        """Episodes of which no camera's video file is missing."""
        incomplete = {index for missing in self.missing_videos.values() for index in missing}
        return tuple(record.episode_index for record in self.episodes if record.episode_index not in incomplete)

    @cached_property
    def stats(self) -> dict[str, Statistics]:
        """Feature -> statistics over all frames.

        Read from `stats.json`. Statistics of columns are computed where there are none: always for v2.1, which keeps
        them per episode and without quantiles, and when an interrupted recording left that file behind the episodes.
        Those of v2.1's cameras are pooled from those of the episodes and have no quantiles either.
        """
        stored = self._layout.read_statistics(self.root, self.info, self._table)
        missing = {name: column for name, column in self._columns.items() if name not in stored and len(self)}
        return {name: column_statistics(column) for name, column in missing.items()} | stored

    @property
    def states(self) -> NDArray[np.float32]:
        """[frames, state_dim] of all episodes, one after the other, in robot units. ValueError where it has none."""
        return self._vectors(STATE)

    @property
    def actions(self) -> NDArray[np.float32]:
        """[frames, action_dim] of all episodes, one after the other, in robot units. ValueError where it has none."""
        return self._vectors(ACTION)

    @cached_property
    def episode_ends(self) -> NDArray[np.int64]:
        """[frames] for each frame the row just after the last one of its episode, as `action_chunks` wants it."""
        ends = np.array([record.to_index for record in self.episodes], np.int64)
        return ends[self.column("episode_index")]

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column, [frames] or [frames, d], in the order of the dataset."""
        dtype = self.features.get(name, {}).get("dtype")
        is_other = name in self.features and name not in self._columns
        require(not is_other, f"The feature {name!r} is {dtype}, not numbers. Columns: {', '.join(self._columns)}.")
        if name not in self._columns:
            raise registry.unknown("column", name, self._columns)
        return self._columns[name]

    def _vectors(self, name: str) -> NDArray[np.float32]:
        """The states or actions, also of one dimension, as rows."""
        return self.column(name).reshape(len(self), math.prod(self.features[name]["shape"]))

    def __len__(self) -> int:
        """Number of frames."""
        return self.info["total_frames"]

    def frame(self, index: int) -> Frame:
        """Frame `index` of the dataset, with the images of all cameras."""
        require(0 <= index < len(self), f"There is no frame {index}; the dataset has the frames 0 to {len(self) - 1}.")
        return self._frame(index, self._pictures)

    def stream(self, episodes: Iterable[int] | None = None) -> Iterator[Frame]:
        """Yield the frames of some episodes, or of all, one after the other; each video is decoded once, in order.

        Raises ValueError, before the first frame, for episodes that do not exist or whose video is missing.
        """
        records = self.episodes if episodes is None else tuple(self._record(index) for index in episodes)
        missing = sorted({record.episode_index for record in records} - set(self.episodes_with_video))
        require(
            not missing,
            f"{self.root}: {len(self.missing_videos)} video files are missing, among them those of the episodes "
            f"{missing[:10]}. Copy them, or give stream(dataset.episodes_with_video).",
        )
        return self._frames(records)

    def _frames(self, records: Iterable[EpisodeRecord]) -> Iterator[Frame]:
        pictures = Pictures(self.root, self.info)
        for record in records:
            for index in range(record.from_index, record.to_index):
                yield self._frame(index, pictures)

    def _frame(self, index: int, pictures: Pictures) -> Frame:
        record = self.episodes[self.column("episode_index")[index]]
        return Frame(
            images={camera: self._image(key, record, index, pictures) for camera, key in self._keys.items()},
            state=self.states[index],
            action=self.actions[index],
            task=self.tasks[int(self.column("task_index")[index])],
            episode_index=record.episode_index,
            frame_index=int(self.column("frame_index")[index]),
            timestamp_s=float(self.column("timestamp")[index]),
            extras={name: self.column(name)[index] for name in self._extras},
        )

    def episode(self, episode_index: int) -> Episode:
        """A whole episode, with all its images. Its task is the one of its first frame."""
        record = self._record(episode_index)
        rows = slice(record.from_index, record.to_index)
        return Episode(
            images={camera: self.episode_images(episode_index, camera) for camera in self.cameras},
            state=self.states[rows],
            action=self.actions[rows],
            task=self.tasks[int(self.column("task_index")[record.from_index])],
            extras={name: self.column(name)[rows] for name in self._extras},
        )

    def episode_images(self, episode_index: int, camera: str) -> NDArray[np.uint8]:
        """All images [T, height, width, 3] of one camera in an episode, decoded in one go."""
        if camera not in self._keys:
            raise registry.unknown("camera", camera, self._keys)
        record = self._record(episode_index)
        height, width = self.image_size(camera)
        images = np.empty((record.length, height, width, 3), np.uint8)
        for row in range(record.length):
            images[row] = self._image(self._keys[camera], record, record.from_index + row, self._pictures)
        return images

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's images, in pixels."""
        return picture_size(self.features[self._keys[camera]])

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Camera -> feature."""
        return dict(zip(self.cameras, camera_keys(self.info), strict=True))

    @cached_property
    def _extras(self) -> list[str]:
        return [name for name in self._columns if name not in {STATE, ACTION, *INDEX_COLUMNS}]

    def _record(self, episode_index: int) -> EpisodeRecord:
        is_there, last = 0 <= episode_index < len(self.episodes), len(self.episodes) - 1
        require(is_there, f"There is no episode {episode_index}; the dataset has the episodes 0 to {last}.")
        return self.episodes[episode_index]

    def _image(self, key: str, record: EpisodeRecord, index: int, pictures: Pictures) -> NDArray[np.uint8]:
        """The image of one camera at row `index`."""
        return pictures.image(key, record, index - record.from_index, self.column("timestamp")[index])
