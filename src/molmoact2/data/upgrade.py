"""LeRobot v2.1 becomes v3.0 without loss: rows and pictures stay what they are, only the files are arranged anew.

Neighbouring episodes share data and video files up to the usual sizes. Video is never encoded again: files that can be
joined as they are become one, all others are copied.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from molmoact2.data.columns import read_shard
from molmoact2.data.compaction import group_files
from molmoact2.data.episodes import EpisodeRecord, VideoSpan, episode_row
from molmoact2.data.errors import expect, require
from molmoact2.data.files import (
    BYTES_PER_MB,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    VIDEO_PATH,
    Shard,
    write_json,
    write_table,
    written_atomically,
)
from molmoact2.data.legacy import pooled_statistics, read_old_image_statistics
from molmoact2.data.metadata import VERSION, video_keys, write_statistics, write_tasks
from molmoact2.data.pictures import video_path
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.statistics import column_statistics
from molmoact2.data.video import TOLERANCE_S, decoder_setup, join_videos, packet_times

DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
CARRIED = ("video", "image", "string", "language")
"""Dtypes, beside numbers, whose files or columns are carried over."""


def upgrade(dataset: LeRobotDataset, root: Path, episodes: Sequence[int], advance: Callable[[], None]) -> None:
    """Write episodes of a v2.1 dataset to the empty folder `root` as v3.0.

    Args:
        dataset: where they are.
        root: the new dataset.
        episodes: their indices in order; they are numbered from 0 on.
        advance: called when the rows of an episode are written, and when a video of it is.

    Raises:
        ValueError: naming the file, when a file is missing or damaged or holds what is not known here.
    """
    unknown = [name for name in dataset.other_features if dataset.features[name]["dtype"] not in CARRIED]
    require(not unknown, f"{dataset.root}: the features {unknown} are kept in files that are not known here.")
    old = [dataset.episodes[index] for index in episodes]
    new = _numbered_anew(old)
    shards = _write_data(dataset, root, list(zip(old, new, strict=True)), advance)
    spans = {key: _write_videos(dataset, root, key, old, advance) for key in video_keys(dataset.info)}
    records = [
        replace(record, data_shard=shards[index], videos={key: spans[key][index] for key in spans})
        for index, record in enumerate(new)
    ]
    _write_meta(dataset, root, old, records)


def _numbered_anew(old: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The episodes one after the other, from 0 on."""
    ends = accumulate(record.length for record in old)
    return [
        replace(record, episode_index=index, from_index=end - record.length, to_index=end)
        for index, (record, end) in enumerate(zip(old, ends, strict=True))
    ]


def _write_data(
    dataset: LeRobotDataset,
    root: Path,
    episodes: Sequence[tuple[EpisodeRecord, EpisodeRecord]],
    advance: Callable[[], None],
) -> list[Shard]:
    """Write the rows of (old, new) episodes; returns the data file of each."""
    template = dataset.info["data_path"]
    paths = {old.data_shard: dataset.root / old.data_shard.path(template) for old, _ in episodes}
    by_shard = {old.data_shard: (old, new) for old, new in episodes}
    places: list[Shard] = []
    for number, group in enumerate(group_files(paths, DATA_FILE_MB * BYTES_PER_MB, dict.fromkeys(paths))):
        tables: list[pa.Table] = []
        for old, new in (by_shard[shard] for shard in group):
            _, table = read_shard(dataset.root, template, old.data_shard, [old])
            tables.append(_with_indices(table, new))
            advance()
        write_table(root / _shard(number).path(DATA_PATH), tables)
        places += [_shard(number)] * len(group)
    return places


def _with_indices(table: pa.Table, record: EpisodeRecord) -> pa.Table:
    """The rows of an episode under its new number and place."""
    columns = {
        "episode_index": np.full(record.length, record.episode_index),
        "index": np.arange(record.from_index, record.to_index),
    }
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


def _write_videos(
    dataset: LeRobotDataset, root: Path, key: str, old: Sequence[EpisodeRecord], advance: Callable[[], None]
) -> list[VideoSpan]:
    """Join or copy the videos of one camera; returns where each is now."""
    fps = dataset.fps
    lengths = {record.videos[key].shard: record.length for record in old}
    paths = {record.videos[key].shard: video_path(dataset.root, dataset.info, key, record) for record in old}
    kinds = {shard: _kind(path, lengths[shard], fps) for shard, path in paths.items()}
    spans: list[VideoSpan] = []
    for number, group in enumerate(group_files(paths, VIDEO_FILE_MB * BYTES_PER_MB, kinds)):
        target = root / _shard(number).path(VIDEO_PATH, video_key=key)
        _join_or_copy(target, [(paths[shard], lengths[shard]) for shard in group], fps)
        for end, shard in zip(accumulate(lengths[shard] for shard in group), group, strict=True):
            from_s, to_s = (end - lengths[shard]) / fps, end / fps
            spans.append(VideoSpan(shard=_shard(number), from_s=from_s, to_s=to_s))
            advance()
    return spans


def _kind(path: Path, length: int, fps: float) -> Any:
    """Files of equal kind can be joined; one that does not hold exactly its frames, in order, is of its own kind."""
    times_s = packet_times(path)
    expect(len(times_s) >= length, path, f"it has {len(times_s)} frames, its episode has {length}")
    is_plain = len(times_s) == length and np.allclose(times_s, np.arange(length) / fps, rtol=0, atol=TOLERANCE_S / 2)
    return decoder_setup(path) if is_plain else path


def _join_or_copy(target: Path, parts: Sequence[tuple[Path, int]], fps: float) -> None:
    if len(parts) > 1:
        join_videos(target, parts, fps=fps)
        return
    with written_atomically(target) as temporary:
        shutil.copyfile(parts[0][0], temporary)


def _shard(number: int) -> Shard:
    return Shard(*divmod(number, FILES_PER_CHUNK))


def _write_meta(
    dataset: LeRobotDataset, root: Path, old: Sequence[EpisodeRecord], records: Sequence[EpisodeRecord]
) -> None:
    """Write the table of episodes, the instructions, the statistics and `info.json`."""
    stored = read_old_image_statistics(dataset.root, dataset.info) or [{} for _ in dataset.episodes]
    images = [stored[record.episode_index] for record in old]
    columns = _columns(dataset, old, records)
    rows: list[dict[str, Any]] = []
    for record, image in zip(records, images, strict=True):
        parts = {name: column[record.from_index : record.to_index] for name, column in columns.items()}
        statistics = {name: column_statistics(part) for name, part in parts.items()}
        rows.append(episode_row(record, statistics | image, Shard(0, 0)))
    write_table(root / Shard(0, 0).path(EPISODES_PATH), [pa.Table.from_pylist(rows)])
    write_tasks(root, dataset.tasks)
    whole = {name: column_statistics(column) for name, column in columns.items()}
    write_statistics(root, whole | pooled_statistics(images))
    write_json(root / INFO_PATH, _new_info(dataset, records))


def _columns(
    dataset: LeRobotDataset, old: Sequence[EpisodeRecord], records: Sequence[EpisodeRecord]
) -> Mapping[str, NDArray[Any]]:
    """The numeric columns of the new dataset."""
    rows = np.concatenate([np.arange(record.from_index, record.to_index) for record in old])
    columns = {name: dataset.column(name)[rows] for name in dataset.column_names}
    numbers = np.repeat([record.episode_index for record in records], [record.length for record in records])
    return columns | {"episode_index": numbers, "index": np.arange(len(rows))}


def _new_info(dataset: LeRobotDataset, records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """`info.json` of the new dataset; splits are kept when no episode was left out."""
    is_whole = len(records) == len(dataset.episodes)
    return {
        "codebase_version": VERSION,
        "robot_type": dataset.info.get("robot_type"),
        "total_episodes": len(records),
        "total_frames": records[-1].to_index,
        "total_tasks": len(dataset.tasks),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": DATA_FILE_MB,
        "video_files_size_in_mb": VIDEO_FILE_MB,
        "fps": dataset.fps,
        "splits": dataset.info.get("splits", {}) if is_whole else {"train": f"0:{len(records)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if video_keys(dataset.info) else None,
        "features": dataset.features,
    }
