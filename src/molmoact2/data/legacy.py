"""The parts of LeRobot v2.1 that differ from v3.0: every episode has files of its own, and `meta/` lists in JSON lines.

meta/episodes.jsonl          {"episode_index": 0, "tasks": ["pick up the cube"], "length": 120}
meta/tasks.jsonl             {"task_index": 0, "task": "pick up the cube"}
meta/episodes_stats.jsonl    {"episode_index": 0, "stats": {"action": {"min": ..., "max": ..., "mean": ..., ...}}}
data/chunk-000/episode_000000.parquet
videos/chunk-000/observation.images.front/episode_000000.mp4
"""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.data.episodes import EpisodeRecord, EpisodesTable, VideoSpan, check_frames_add_up
from molmoact2.data.errors import expect, malformed
from molmoact2.data.files import INFO_PATH, Shard
from molmoact2.data.metadata import camera_keys, video_keys
from molmoact2.data.statistics import Statistics

EPISODES_LINES = "meta/episodes.jsonl"
TASKS_LINES = "meta/tasks.jsonl"
STATS_LINES = "meta/episodes_stats.jsonl"
SUMMABLE = ("min", "max", "mean", "std", "count")
"""Statistics of parts from which those of the whole follow."""


def read_old_episodes(root: Path, info: Mapping[str, Any]) -> EpisodesTable:
    """Read the rows of all episodes. Raises ValueError, naming the file, when rows are missing or disagree."""
    path, size = root / EPISODES_LINES, info.get("chunks_size")
    expect(type(size) is int and size > 0, root / INFO_PATH, f"chunks_size is {size!r}, not a count")
    rows = sorted(read_json_lines(path, {"episode_index": int, "length": int, "tasks": list}), key=_index)
    problem = f"{INFO_PATH} promises {info['total_episodes']} episodes from 0 on, here are {len(rows)} rows of others"
    expect([_index(row) for row in rows] == list(range(info["total_episodes"])), path, problem)
    ends = accumulate(row["length"] for row in rows)
    records = [_record(row, end, info) for row, end in zip(rows, ends, strict=True)]
    is_text = all(type(text) is str for record in records for text in record.tasks)
    expect(is_text, path, "its tasks are not texts")
    check_frames_add_up(root, records, info["total_frames"], path)
    return EpisodesTable(records=tuple(records), paths=(path,), histograms=None)


def read_old_tasks(root: Path) -> dict[int, str]:
    """Read task index -> instruction. The rows may be in any order."""
    path = root / TASKS_LINES
    rows = read_json_lines(path, {"task_index": int, "task": str})
    tasks = {row["task_index"]: row["task"] for row in rows}
    expect(len(tasks) == len(rows), path, "two rows have the same task_index")
    return tasks


def read_old_image_statistics(root: Path, info: Mapping[str, Any]) -> list[dict[str, Statistics]]:
    """Statistics of the cameras of each episode: camera key -> min, max, mean, std [3, 1, 1] and count [1].

    LeRobot takes them from sampled frames. Cameras that some episode says nothing about are left out.
    """
    path = root / STATS_LINES
    rows = read_json_lines(path, {"episode_index": int, "stats": dict}) if path.is_file() else []
    rows.sort(key=_index)
    is_whole = [_index(row) for row in rows] == list(range(info["total_episodes"]))
    keys = [key for key in camera_keys(info) if is_whole and all(key in row["stats"] for row in rows)]
    return [{key: _image_statistics(path, key, row["stats"][key]) for key in keys} for row in rows]


def pooled_statistics(episodes: Sequence[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """Statistics over all episodes from those of each; without quantiles, because those do not add up."""
    pooled: dict[str, Statistics] = {}
    for key in episodes[0] if episodes else ():
        stacked = {name: np.stack([stats[key][name] for stats in episodes]) for name in SUMMABLE}
        counts = stacked["count"].sum(axis=0)
        weights = (stacked["count"] / counts)[..., None, None]
        mean = (weights * stacked["mean"]).sum(axis=0)
        variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
        extremes = {"min": stacked["min"].min(axis=0), "max": stacked["max"].max(axis=0)}
        pooled[key] = extremes | {"mean": mean, "std": np.sqrt(variance), "count": counts}
    return pooled


def read_json_lines(path: Path, kinds: Mapping[str, type]) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line, each with the fields `kinds` of these types.

    Raises ValueError, naming the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing") from error
    except UnicodeDecodeError as error:
        raise malformed(path, f"it is not text ({error})") from error
    return [_parsed(path, number, line, kinds) for number, line in enumerate(lines, 1) if line.strip()]


def _parsed(path: Path, number: int, line: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise malformed(path, f"line {number} is not valid JSON ({error})") from error
    is_right = isinstance(row, dict) and all(type(row.get(name)) is kind for name, kind in kinds.items())
    wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
    expect(is_right, path, f"line {number} is no object with {wanted}")
    return row


def _index(row: Mapping[str, Any]) -> int:
    return row["episode_index"]


def _record(row: Mapping[str, Any], end: int, info: Mapping[str, Any]) -> EpisodeRecord:
    """The record of an episode whose files hold nothing else."""
    index, length = row["episode_index"], row["length"]
    shard = Shard(index // info["chunks_size"], index)
    return EpisodeRecord(
        episode_index=index,
        tasks=tuple(row["tasks"]),
        length=length,
        from_index=end - length,
        to_index=end,
        data_shard=shard,
        videos={key: VideoSpan(shard=shard, from_s=0.0, to_s=length / info["fps"]) for key in video_keys(info)},
    )


def _image_statistics(path: Path, key: str, stored: Any) -> Statistics:
    """Check what is stored about one camera of one episode."""
    try:
        stats = {name: np.array(stored[name], np.float64) for name in SUMMABLE}
    except (KeyError, TypeError, ValueError) as error:
        raise malformed(path, f"the statistics of {key!r} are not numbers: {error!r}") from error
    shapes = {name: value.shape for name, value in stats.items()}
    is_right = shapes == dict.fromkeys(SUMMABLE, (3, 1, 1)) | {"count": (1,)} and stats["count"][0] > 0
    is_right = is_right and all(np.isfinite(value).all() for value in stats.values())
    expect(bool(is_right), path, f"the statistics of {key!r} are not finite numbers per channel, [3, 1, 1]: {shapes}")
    return stats | {"count": stats["count"].astype(np.int64)}
