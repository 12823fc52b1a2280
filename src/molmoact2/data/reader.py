"""Reading a LeRobot v3.0 dataset from a local folder.

The numeric columns are held in memory; images are decoded when they are asked for, by their time in the video. For
training on random frames, decode everything once with `molmoact2.data.frame_cache`.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2 import registry
from molmoact2.data.columns import read_columns
from molmoact2.data.episodes import EpisodeRecord, read_episodes
from molmoact2.data.errors import expect, require
from molmoact2.data.files import STATS_PATH, TASKS_PATH
from molmoact2.data.metadata import read_info, read_statistics, read_tasks, video_keys
from molmoact2.data.schema import ACTION, CAMERA_PREFIX, INDEX_COLUMNS, STATE, Episode
from molmoact2.data.statistics import Statistics, column_statistics, image_statistics
from molmoact2.data.video import TOLERANCE_S, VideoFile

MOST_OPEN_FILES = 16


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
    """A dataset on disk. Everything is checked when it is opened, except the video, which is checked as it is read."""

    def __init__(self, root: str | Path) -> None:
        """Open the dataset at `root`.

        A dataset whose recording was interrupted opens with the episodes that were finished.

        Raises:
            ValueError: naming the file and what to do, when something is missing, damaged or contradictory.
        """
        self.root = Path(root)
        self.info = read_info(self.root)
        table = read_episodes(self.root, self.info)
        self.episodes: tuple[EpisodeRecord, ...] = table.records
        """The table of episodes."""
        self._histograms = table.histograms
        self._columns = read_columns(self.root, self.info, self.episodes)
        self.tasks: dict[int, str] = read_tasks(self.root) if self.episodes else {}
        """Task index -> instruction."""
        self._check()
        self._videos = _OpenVideos()

    def _check(self) -> None:
        unknown = set(np.unique(self.column("task_index")).tolist()) - set(self.tasks)
        problem = f"it has no instruction for the task indices {sorted(unknown)[:10]}"
        expect(not unknown, self.root / TASKS_PATH, problem)
        for record in self.episodes:
            for key in record.videos:
                path = self._video_path(key, record)
                expect(path.is_file(), path, f"the video of episode {record.episode_index} is missing")

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.info["fps"]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Feature -> dtype, shape and names, as in `info.json`."""
        return self.info["features"]

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera names, without the prefix `observation.images.`, in the order of the features."""
        return tuple(key.removeprefix(CAMERA_PREFIX) for key in video_keys(self.info))

    @cached_property
    def stats(self) -> dict[str, Statistics]:
        """Feature -> statistics over all frames.

        Read from `stats.json`, or computed anew when an interrupted recording left that file behind the episodes.
        """
        if self._histograms is None or (self.root / STATS_PATH).exists():
            stats = read_statistics(self.root)
            if self._histograms is None or stats["index"]["count"].tolist() == [len(self)]:
                return stats
        columns = {name: column_statistics(column) for name, column in self._columns.items()}
        return columns | {key: image_statistics(counts, len(self)) for key, counts in self._histograms.items()}

    @property
    def states(self) -> NDArray[np.float32]:
        """[frames, state_dim] of all episodes, one after the other, in robot units."""
        return self.column(STATE).reshape(len(self), *self.features[STATE]["shape"])

    @property
    def actions(self) -> NDArray[np.float32]:
        """[frames, action_dim] of all episodes, one after the other, in robot units."""
        return self.column(ACTION).reshape(len(self), *self.features[ACTION]["shape"])

    @cached_property
    def episode_ends(self) -> NDArray[np.int64]:
        """[frames] for each frame the row just after the last one of its episode, as `action_chunks` wants it."""
        ends = np.array([record.to_index for record in self.episodes], np.int64)
        return ends[self.column("episode_index")]

    def column(self, name: str) -> NDArray[Any]:
        """A numeric column, [frames] or [frames, d], in the order of the dataset."""
        if name not in self._columns:
            raise registry.unknown("column", name, self._columns)
        return self._columns[name]

    def __len__(self) -> int:
        """Number of frames."""
        return self.info["total_frames"]

    def frame(self, index: int) -> Frame:
        """Frame `index` of the dataset, with the images of all cameras."""
        require(0 <= index < len(self), f"There is no frame {index}; the dataset has the frames 0 to {len(self) - 1}.")
        record = self.episodes[self.column("episode_index")[index]]
        return Frame(
            images={camera: self._image(key, record, index) for camera, key in self._keys.items()},
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
            images[row] = self._image(self._keys[camera], record, record.from_index + row)
        return images

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of a camera's images, in pixels."""
        height, width = self.features[self._keys[camera]]["shape"][:2]
        return height, width

    @cached_property
    def _keys(self) -> dict[str, str]:
        """Camera -> video key."""
        return dict(zip(self.cameras, video_keys(self.info), strict=True))

    @cached_property
    def _extras(self) -> list[str]:
        return [name for name in self._columns if name not in {STATE, ACTION, *INDEX_COLUMNS}]

    def _record(self, episode_index: int) -> EpisodeRecord:
        is_there, last = 0 <= episode_index < len(self.episodes), len(self.episodes) - 1
        require(is_there, f"There is no episode {episode_index}; the dataset has the episodes 0 to {last}.")
        return self.episodes[episode_index]

    def _video_path(self, key: str, record: EpisodeRecord) -> Path:
        return self.root / record.videos[key].shard.path(self.info["video_path"], video_key=key)

    def _image(self, key: str, record: EpisodeRecord, index: int) -> NDArray[np.uint8]:
        """The image of one camera at row `index`, looked up by its time."""
        timestamp = self.column("timestamp")[index]
        path = self._video_path(key, record)
        image = self._videos.get(path).image_at(
            record.videos[key].from_s + float(timestamp), tolerance_s=TOLERANCE_S + float(np.spacing(timestamp))
        )
        shape = self.features[key]["shape"]
        expect(list(image.shape) == shape, path, f"its images have the shape {list(image.shape)}, not {shape}")
        return image


class _OpenVideos:
    """The video files that were used last. A process that was forked or unpickled opens its own."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, VideoFile] = OrderedDict()
        self._process = os.getpid()

    def get(self, path: Path) -> VideoFile:
        if self._process != os.getpid():
            self._files, self._process = OrderedDict(), os.getpid()
        if path not in self._files:
            self._files[path] = VideoFile(path)
            if len(self._files) > MOST_OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(path)
        return self._files[path]

    def __reduce__(self) -> tuple[type["_OpenVideos"], tuple[()]]:
        return _OpenVideos, ()
