"""Recording a LeRobot v3.0 dataset, episode by episode.

An episode is finished when `info.json` counts it, which is the last thing written. A recording that is killed therefore
leaves a valid dataset of the episodes before; `DatasetWriter.resume` clears the rest away and goes on.
"""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from molmoact2.data.columns import data_table, read_columns
from molmoact2.data.compaction import compact, remove_leftovers
from molmoact2.data.episodes import EpisodeRecord, VideoSpan, episode_row, read_episodes, write_episodes
from molmoact2.data.errors import malformed, require
from molmoact2.data.files import (
    DATA_PATH,
    INFO_PATH,
    TEMPORARY_SUFFIX,
    VIDEO_PATH,
    Shard,
    write_json,
    write_table,
)
from molmoact2.data.metadata import (
    VERSION,
    encoding_of,
    new_info,
    read_info,
    read_tasks,
    schema_of,
    write_statistics,
    write_tasks,
)
from molmoact2.data.schema import ACTION, CAMERA_PREFIX, STATE, DatasetSchema, Episode
from molmoact2.data.statistics import Statistics, column_statistics, image_statistics, pixel_histogram
from molmoact2.data.video import VideoEncoding, encode_video

STATISTICS_GROWTH = 1.1
"""During a recording, `stats.json` is brought up to date whenever the dataset has grown by this factor."""


class DatasetWriter:
    """Writes episodes to a dataset. One writer at a time per dataset.

    Use it as a context manager, or call `finalize` at the end. After an exception the dataset is left as it is: valid,
    with all finished episodes, and ready for `resume`.
    """

    def __init__(
        self,
        root: str | Path,
        schema: DatasetSchema,
        *,
        encoding: VideoEncoding | None = None,
        data_file_mb: int = 100,
        video_file_mb: int = 200,
    ) -> None:
        """Start a new dataset.

        Args:
            root: the dataset's folder: new, or empty.
            schema: what its episodes are made of.
            encoding: how images become video.
            data_file_mb: size up to which data files are joined, in MiB.
            video_file_mb: size up to which video files are joined, in MiB.

        Raises:
            ValueError: when `root` holds files already.
        """
        root = Path(root)
        is_taken = root.is_file() or any(path.is_file() and path.suffix != TEMPORARY_SUFFIX for path in root.rglob("*"))
        fix = "Choose a new folder, or continue the recording with DatasetWriter.resume(root)."
        require(not is_taken, f"{root} is not empty. {fix}")
        info = new_info(schema, encoding or VideoEncoding(), data_file_mb=data_file_mb, video_file_mb=video_file_mb)
        write_json(root / INFO_PATH, info)
        self._open(root)

    @classmethod
    def resume(cls, root: str | Path) -> "DatasetWriter":
        """Continue a dataset that a `DatasetWriter` began, whether it was finalized, interrupted or killed.

        What an unfinished episode left is deleted. Raises ValueError when another program wrote the dataset.
        """
        writer = cls.__new__(cls)
        writer._open(Path(root))
        return writer

    def _open(self, root: Path) -> None:
        """Take over the dataset at `root` as it stands on disk."""
        self.root = root
        self._info = read_info(root)
        is_ours = self._info["codebase_version"] == VERSION and {STATE, ACTION} <= set(self._info["features"])
        episodes = read_episodes(root, self._info) if is_ours else None
        histograms = episodes and episodes.histograms
        if episodes is None or histograms is None:
            fix = "Start a new dataset, and add the episodes of LeRobotDataset(root) to it."
            raise malformed(root, "it was not recorded by this writer, so it cannot be continued", fix)
        remove_leftovers(root, self._info, episodes)
        self.schema = schema_of(self._info)
        self._encoding = encoding_of(self._info)
        self._histograms = {
            CAMERA_PREFIX + camera: histograms.get(CAMERA_PREFIX + camera, np.zeros((3, 256), np.int64))
            for camera in self.schema.image_sizes
        }
        self._tasks = [text for _, text in sorted(read_tasks(root).items())] if episodes.records else []
        self._columns = [read_columns(root, self._info, episodes.records)]
        self._statistics_frames = 0
        places = [record.data_shard for record in episodes.records]
        places += [span.shard for record in episodes.records for span in record.videos.values()]
        self._next_shard = max(places).next() if places else Shard(0, 0)

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finalize()

    @property
    def num_episodes(self) -> int:
        """Finished episodes in the dataset."""
        return self._info["total_episodes"]

    @property
    def num_frames(self) -> int:
        """Frames of the finished episodes."""
        return self._info["total_frames"]

    def add_episode(self, episode: Episode) -> int:
        """Write one episode; when this returns, it is safely on disk. Returns its index.

        Raises ValueError, before anything is written, when the arrays are not as the schema says.
        """
        self.schema.check(episode)
        tasks = self._tasks if episode.task in self._tasks else [*self._tasks, episode.task]
        columns = self._rows(episode, tasks.index(episode.task))
        histograms = {CAMERA_PREFIX + camera: pixel_histogram(images) for camera, images in episode.images.items()}
        self._write_files(episode, columns, histograms)
        if tasks != self._tasks:
            write_tasks(self.root, dict(enumerate(tasks)))
        info = self._info | {
            "total_episodes": self.num_episodes + 1,
            "total_frames": self.num_frames + len(episode.action),
            "total_tasks": len(tasks),
            "splits": {"train": f"0:{self.num_episodes + 1}"},
        }
        write_json(self.root / INFO_PATH, info)
        self._info, self._tasks, self._next_shard = info, tasks, self._next_shard.next()
        self._columns.append(columns)
        self._histograms = {key: counts + histograms[key] for key, counts in self._histograms.items()}
        if self.num_frames >= STATISTICS_GROWTH * self._statistics_frames:
            self._write_statistics()
        return self.num_episodes - 1

    def finalize(self) -> None:
        """Bring the statistics up to date and join the files of the episodes into large ones."""
        if self.num_episodes:
            self._write_statistics()
            compact(self.root)

    def _rows(self, episode: Episode, task_index: int) -> dict[str, NDArray[Any]]:
        """The columns of an episode, as they are stored."""
        frames = np.arange(len(episode.action))
        given = episode.columns()
        plain = {name: array.reshape(-1) for name, array in given.items() if array.size == len(frames)}
        return (
            given
            | plain
            | {
                "timestamp": (frames / self.schema.fps).astype(np.float32),
                "frame_index": frames,
                "episode_index": np.full_like(frames, self.num_episodes),
                "index": frames + self.num_frames,
                "task_index": np.full_like(frames, task_index),
            }
        )

    def _write_files(
        self, episode: Episode, columns: dict[str, NDArray[Any]], histograms: dict[str, NDArray[np.int64]]
    ) -> None:
        """Write the video, data and episodes files of an episode."""
        length, shard = len(episode.action), self._next_shard
        for camera, images in episode.images.items():
            path = self.root / shard.path(VIDEO_PATH, video_key=CAMERA_PREFIX + camera)
            encode_video(path, images, fps=self.schema.fps, encoding=self._encoding)
        write_table(self.root / shard.path(DATA_PATH), [data_table(columns)])
        record = EpisodeRecord(
            episode_index=self.num_episodes,
            tasks=(episode.task,),
            length=length,
            from_index=self.num_frames,
            to_index=self.num_frames + length,
            data_shard=shard,
            videos={key: VideoSpan(shard=shard, from_s=0.0, to_s=length / self.schema.fps) for key in histograms},
        )
        row = episode_row(record, _statistics(columns, histograms), shard)
        write_episodes(self.root, shard, pa.Table.from_pylist([row]), histograms)

    def _write_statistics(self) -> None:
        """Write `stats.json` for all frames so far."""
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[-1]}
        self._columns = [columns]
        write_statistics(self.root, _statistics(columns, self._histograms))
        self._statistics_frames = self.num_frames


def _statistics(columns: dict[str, NDArray[Any]], histograms: dict[str, NDArray[np.int64]]) -> dict[str, Statistics]:
    num_frames = len(columns["index"])
    return {name: column_statistics(column) for name, column in columns.items()} | {
        key: image_statistics(counts, num_frames) for key, counts in histograms.items()
    }
