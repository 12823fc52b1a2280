"""The table of episodes of a LeRobot v3.0 dataset: `meta/episodes/`.

Each row says where the frames and the video of one episode are. A dataset has as many episodes as `info.json` says;
rows beyond that are left from an episode that was never finished, and of two rows for one episode the first counts
(an interrupted `compact` leaves such pairs, and both are true).
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from molmoact2.data.errors import expect
from molmoact2.data.files import EPISODES_PATH, INFO_PATH, Shard, read_table, write_table
from molmoact2.data.metadata import video_keys
from molmoact2.data.statistics import LEVELS, Statistics

HISTOGRAMS_KEY = b"molmoact2.pixel_histograms"
"""Key, in the metadata of an episodes file, of the summed pixel histograms of its episodes: camera -> [3, 256] counts.

Other readers do not see it; it keeps the image statistics of a resumed recording exact."""


@dataclass(frozen=True, kw_only=True)
class VideoSpan:
    """Where the video of one episode is, for one camera."""

    shard: Shard
    from_s: float
    """Time of the first frame in the file, in seconds."""
    to_s: float
    """Time just after the last frame."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One row of the table of episodes."""

    episode_index: int
    tasks: tuple[str, ...]
    length: int
    """Frames."""
    from_index: int
    """Row of the first frame in the dataset (`dataset_from_index`)."""
    to_index: int
    """Row just after the last frame (`dataset_to_index`)."""
    data_shard: Shard
    videos: Mapping[str, VideoSpan]
    """Video key (for instance observation.images.front) -> its part of a video file."""


@dataclass(frozen=True, kw_only=True)
class EpisodesTable:
    """All finished episodes, in order."""

    records: tuple[EpisodeRecord, ...]
    paths: tuple[Path, ...]
    """The episodes files that the records come from."""
    histograms: Mapping[str, NDArray[np.int64]] | None
    """Video key -> pixel histograms [3, 256] over all episodes; None when another program wrote the dataset."""


def episode_row(record: EpisodeRecord, statistics: Mapping[str, Statistics], shard: Shard) -> dict[str, Any]:
    """The row for one episode, with its own statistics, in the episodes file `shard`."""
    row: dict[str, Any] = {
        "episode_index": record.episode_index,
        "tasks": list(record.tasks),
        "length": record.length,
        "dataset_from_index": record.from_index,
        "dataset_to_index": record.to_index,
        "data/chunk_index": record.data_shard.chunk_index,
        "data/file_index": record.data_shard.file_index,
    }
    for key, span in record.videos.items():
        row |= {
            f"videos/{key}/chunk_index": span.shard.chunk_index,
            f"videos/{key}/file_index": span.shard.file_index,
            f"videos/{key}/from_timestamp": span.from_s,
            f"videos/{key}/to_timestamp": span.to_s,
        }
    for name, stats in statistics.items():
        row |= {f"stats/{name}/{key}": value.tolist() for key, value in stats.items()}
    return row | {"meta/episodes/chunk_index": shard.chunk_index, "meta/episodes/file_index": shard.file_index}


def write_episodes(root: Path, shard: Shard, table: pa.Table, histograms: Mapping[str, NDArray[np.int64]]) -> None:
    """Write one episodes file, with the summed pixel histograms [3, 256] of its episodes, by video key."""
    encoded = {key: base64.b64encode(counts.astype("<i8").tobytes()).decode() for key, counts in histograms.items()}
    table = table.replace_schema_metadata({HISTOGRAMS_KEY: json.dumps(encoded)})
    write_table(root / shard.path(EPISODES_PATH), [table])


def read_episodes(root: Path, info: Mapping[str, Any]) -> EpisodesTable:
    """Read the rows of the finished episodes. Raises ValueError, naming the file, when rows are missing or disagree."""
    keys = video_keys(info)
    parts = _finished_rows(root, info["total_episodes"])
    records = [record for path, table in parts.items() for record in _records(path, table, keys)]
    records.sort(key=lambda record: record.episode_index)
    check_frames_add_up(root, records, info["total_frames"], root / "meta/episodes")
    histograms = _summed_histograms(list(parts.values()))
    return EpisodesTable(records=tuple(records), paths=tuple(parts), histograms=histograms)


def _finished_rows(root: Path, num_episodes: int) -> dict[Path, pa.Table]:
    """The rows that count, without their statistics, of each episodes file that has any."""
    seen: set[int] = set()
    parts: dict[Path, pa.Table] = {}
    for path in sorted((root / "meta/episodes").glob("*/*.parquet")):
        table = read_table(path, leave_out="stats/")
        _check_columns(path, table, ["episode_index"], pa.types.is_integer)
        indices = table["episode_index"].to_pylist()
        fresh = [0 <= index < num_episodes and index not in seen for index in indices]
        if any(fresh):
            seen.update(compress(indices, fresh))
            parts[path] = table.filter(pa.array(fresh))
    missing = [index for index in range(min(num_episodes, len(seen) + 9)) if index not in seen]
    problem = f"it promises {num_episodes} episodes, but meta/episodes has no row for {missing}"
    expect(not missing, root / INFO_PATH, problem)
    return parts


def _records(path: Path, table: pa.Table, keys: list[str]) -> list[EpisodeRecord]:
    """Check the rows of an episodes file and turn them into records."""
    counts = ["episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index"]
    counts += ["data/file_index", *(f"videos/{key}/{part}" for key in keys for part in ("chunk_index", "file_index"))]
    times = [f"videos/{key}/{part}" for key in keys for part in ("from_timestamp", "to_timestamp")]
    for names, is_right in (
        (counts, pa.types.is_integer),
        (times, pa.types.is_floating),
        (["tasks"], _is_list_of_text),
    ):
        _check_columns(path, table, names, is_right)
    rows = table.select([*counts, *times, "tasks"]).to_pylist()
    return [
        EpisodeRecord(
            episode_index=row["episode_index"],
            tasks=tuple(row["tasks"]),
            length=row["length"],
            from_index=row["dataset_from_index"],
            to_index=row["dataset_to_index"],
            data_shard=Shard(row["data/chunk_index"], row["data/file_index"]),
            videos={
                key: VideoSpan(
                    shard=Shard(row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]),
                    from_s=row[f"videos/{key}/from_timestamp"],
                    to_s=row[f"videos/{key}/to_timestamp"],
                )
                for key in keys
            },
        )
        for row in rows
    ]


def _check_columns(path: Path, table: pa.Table, names: list[str], is_right: Callable[[pa.DataType], bool]) -> None:
    for name in names:
        expect(name in table.column_names, path, f"the column {name!r} is missing")
        column = table[name]
        problem = f"the column {name!r} is {column.type} with {column.null_count} empty places"
        expect(is_right(column.type) and not column.null_count, path, problem)


def _is_list_of_text(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))


def check_frames_add_up(root: Path, records: list[EpisodeRecord], total_frames: int, path: Path) -> None:
    """Raise ValueError, naming `path` or `info.json`, unless the episodes follow one another and are all there is."""
    end = 0
    for record in records:
        times = [time_s for span in record.videos.values() for time_s in (span.from_s, span.to_s)]
        problem = f"the video of episode {record.episode_index} has the times {times}"
        expect(all(0 <= time_s < math.inf for time_s in times), path, problem)
        problem = (
            f"episode {record.episode_index} has rows {record.from_index} to {record.to_index} and length "
            f"{record.length}, the episode before it ends at row {end}"
        )
        follows = record.from_index == end and record.to_index == end + record.length and record.length > 0
        expect(follows, path, problem)
        end = record.to_index
    problem = f"it promises {total_frames} frames, the episodes of {path.relative_to(root)} have {end}"
    expect(end == total_frames, root / INFO_PATH, problem)


def _summed_histograms(tables: list[pa.Table]) -> dict[str, NDArray[np.int64]] | None:
    total: dict[str, NDArray[np.int64]] = {}
    for table in tables:
        encoded = (table.schema.metadata or {}).get(HISTOGRAMS_KEY)
        if encoded is None:
            return None
        for key, text in json.loads(encoded).items():
            counts = np.frombuffer(base64.b64decode(text), "<i8").reshape(3, LEVELS)
            total[key] = total.get(key, 0) + counts
    return total
