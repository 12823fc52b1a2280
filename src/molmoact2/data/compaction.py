"""Joining the small files of a recording into few large ones, so that it may be killed at any moment.

A recording writes every episode to files of its own. `compact` joins neighbours up to the size limit:

    before    file-000: e0   file-001: e1   file-002: e2
    1.        file-000: e0 e1 e2   file-001: e1   file-002: e2       the table of episodes still points at the old files
    2.        file-000: e0 e1 e2   file-001: e1   file-002: e2       the table points into file-000
    3.        file-000: e0 e1 e2                                     what nothing points at is deleted

The joined file begins with what was there before, so every step leaves a dataset that reads the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from molmoact2.data.columns import read_shard
from molmoact2.data.episodes import EpisodeRecord, EpisodesTable, VideoSpan, read_episodes, write_episodes
from molmoact2.data.files import BYTES_PER_MB, TEMPORARY_SUFFIX, Shard, read_table, write_table
from molmoact2.data.metadata import read_info, video_keys
from molmoact2.data.video import decoder_setup, join_videos


def compact(root: Path) -> None:
    """Join the data, video and episodes files of a dataset of ours up to the size limits in its `info.json`."""
    info = read_info(root)
    episodes = read_episodes(root, info)
    records = episodes.records
    for key in video_keys(info):
        records = _join_video(root, info, key, records)
    records = _join_data(root, info, records)
    if records != episodes.records or len(episodes.paths) > 1:
        table = pa.concat_tables(read_table(path) for path in episodes.paths)
        write_episodes(root, Shard(0, 0), _pointing_at(table, records), episodes.histograms or {})
    remove_leftovers(root, info, read_episodes(root, info))


def remove_leftovers(root: Path, info: Mapping[str, Any], episodes: EpisodesTable) -> None:
    """Delete the files under `root` that belong to no finished episode: of an interrupted recording or compaction."""
    used = {*episodes.paths}
    for record in episodes.records:
        used.add(root / record.data_shard.path(info["data_path"]))
        used |= {root / span.shard.path(info["video_path"], video_key=key) for key, span in record.videos.items()}
    numbered = [path for folder in ("meta/episodes", "data", "videos") for path in (root / folder).rglob("file-*")]
    for path in [*numbered, *root.rglob("*" + TEMPORARY_SUFFIX)]:
        if path not in used:
            path.unlink(missing_ok=True)


def _join_video(
    root: Path, info: Mapping[str, Any], key: str, records: Sequence[EpisodeRecord]
) -> tuple[EpisodeRecord, ...]:
    """Join the files of one camera; returns the records with their new places."""
    fps = info["fps"]
    num_frames: dict[Shard, int] = {}
    for record in records:
        span = record.videos[key]
        num_frames[span.shard] = round(span.to_s * fps)
    paths = {shard: root / shard.path(info["video_path"], video_key=key) for shard in num_frames}
    limit = info["video_files_size_in_mb"] * BYTES_PER_MB
    moved: dict[Shard, tuple[Shard, int]] = {}
    for group in group_files(paths, limit, {shard: decoder_setup(path) for shard, path in paths.items()}):
        if len(group) > 1:
            join_videos(paths[group[0]], [(paths[shard], num_frames[shard]) for shard in group], fps=fps)
        first_frame = 0
        for shard in group:
            moved[shard] = group[0], first_frame
            first_frame += num_frames[shard]
    return tuple(
        replace(record, videos={**record.videos, key: _moved(record.videos[key], moved, fps)}) for record in records
    )


def _moved(span: VideoSpan, moved: Mapping[Shard, tuple[Shard, int]], fps: float) -> VideoSpan:
    shard, first_frame = moved[span.shard]
    from_s, to_s = ((round(time_s * fps) + first_frame) / fps for time_s in (span.from_s, span.to_s))
    return VideoSpan(shard=shard, from_s=from_s, to_s=to_s)


def _join_data(root: Path, info: Mapping[str, Any], records: Sequence[EpisodeRecord]) -> tuple[EpisodeRecord, ...]:
    """Join the data files; returns the records with their new places."""
    members: dict[Shard, list[EpisodeRecord]] = {}
    for record in records:
        members.setdefault(record.data_shard, []).append(record)
    paths = {shard: root / shard.path(info["data_path"]) for shard in members}
    moved: dict[Shard, Shard] = {}
    for group in group_files(paths, info["data_files_size_in_mb"] * BYTES_PER_MB, dict.fromkeys(paths)):
        if len(group) > 1:
            tables = [table for shard in group for table in _row_groups(root, info, shard, members[shard])]
            write_table(paths[group[0]], tables)
        moved |= dict.fromkeys(group, group[0])
    return tuple(replace(record, data_shard=moved[record.data_shard]) for record in records)


def _row_groups(root: Path, info: Mapping[str, Any], shard: Shard, records: Sequence[EpisodeRecord]) -> list[pa.Table]:
    """The rows of each episode of a data file."""
    _, table = read_shard(root, info["data_path"], shard, records)
    start = records[0].from_index
    return [table.slice(record.from_index - start, record.length) for record in records]


def group_files(paths: Mapping[Shard, Path], limit_bytes: float, kinds: Mapping[Shard, Any]) -> list[list[Shard]]:
    """Split shards, in order, into runs of one kind whose files are together at most `limit_bytes`."""
    groups: list[list[Shard]] = []
    size = 0
    for shard, path in paths.items():
        size += path.stat().st_size
        if not groups or size > limit_bytes or kinds[shard] != kinds[groups[-1][0]]:
            groups.append([])
            size = path.stat().st_size
        groups[-1].append(shard)
    return groups


def _pointing_at(table: pa.Table, records: Sequence[EpisodeRecord]) -> pa.Table:
    """The table of episodes with the places of `records`, all in the first episodes file."""
    columns = {
        "data/chunk_index": [record.data_shard.chunk_index for record in records],
        "data/file_index": [record.data_shard.file_index for record in records],
        "meta/episodes/chunk_index": [0] * len(records),
        "meta/episodes/file_index": [0] * len(records),
    }
    for key in records[0].videos:
        spans = [record.videos[key] for record in records]
        columns |= {
            f"videos/{key}/chunk_index": [span.shard.chunk_index for span in spans],
            f"videos/{key}/file_index": [span.shard.file_index for span in spans],
            f"videos/{key}/from_timestamp": [span.from_s for span in spans],
            f"videos/{key}/to_timestamp": [span.to_s for span in spans],
        }
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, name, pa.array(values, table.schema.field(name).type))
    return table
