"""The `meta/` folder of a LeRobot v3.0 dataset, but for its episodes: info.json, tasks.parquet and stats.json."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from molmoact2.data.files import (
    DATA_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    malformed,
    read_json,
    read_table,
    template_is_usable,
    write_json,
    write_table,
)
from molmoact2.data.schema import ACTION, CAMERA_PREFIX, INDEX_COLUMNS, STATE, DatasetSchema, ExtraColumn
from molmoact2.data.statistics import Statistics
from molmoact2.data.video import VideoEncoding

VERSION = "v3.0"


def new_info(
    schema: DatasetSchema, encoding: VideoEncoding, *, data_file_mb: int, video_file_mb: int
) -> dict[str, Any]:
    """The content of `info.json` for a dataset without episodes."""
    videos = {
        CAMERA_PREFIX + camera: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": encoding.feature_info(height=height, width=width, fps=schema.fps),
        }
        for camera, (height, width) in schema.image_sizes.items()
    }
    indices = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX_COLUMNS.items()}
    return {
        "codebase_version": VERSION,
        "robot_type": schema.robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": data_file_mb,
        "video_files_size_in_mb": video_file_mb,
        "fps": schema.fps,
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "features": {**schema.vector_features(), **videos, **indices},
    }


def schema_of(info: Mapping[str, Any]) -> DatasetSchema:
    """The schema that a dataset of ours was recorded with."""
    features = dict(info["features"])
    state, action = features.pop(STATE), features.pop(ACTION)
    return DatasetSchema(
        fps=info["fps"],
        robot_type=info["robot_type"],
        state_names=tuple(state["names"]),
        action_names=tuple(action["names"]),
        image_sizes={
            name.removeprefix(CAMERA_PREFIX): tuple(feature["shape"][:2])
            for name, feature in features.items()
            if feature["dtype"] == "video"
        },
        extras={
            name: ExtraColumn(dtype=feature["dtype"], names=tuple(feature["names"]))
            for name, feature in features.items()
            if feature["dtype"] != "video" and name not in INDEX_COLUMNS
        },
    )


def encoding_of(info: Mapping[str, Any]) -> VideoEncoding:
    """The video encoding that a dataset of ours was recorded with."""
    for key in video_keys(info):
        video = info["features"][key]["info"]
        return VideoEncoding(crf=video["video.crf"], frames_per_keyframe=video["video.g"], preset=video["video.preset"])
    return VideoEncoding()


def read_info(root: Path) -> dict[str, Any]:
    """Read and check `info.json`: version, totals, paths, and the features that every reader needs."""
    path = root / INFO_PATH
    info = read_json(path)
    version = info.get("codebase_version")
    if version != VERSION:
        fix = "Convert it with LeRobot's convert_dataset_v21_to_v30 first."
        raise malformed(path, f"codebase_version is {version!r}, this reader knows {VERSION!r}", fix)
    restore = "Restore the file from its source."
    for key in ("total_episodes", "total_frames"):
        if type(info.get(key)) is not int or info[key] < 0:
            raise malformed(path, f"{key} is {info.get(key)!r}, not a count", restore)
    if not (type(info.get("fps")) in (int, float) and 0 < info["fps"] < math.inf):
        raise malformed(path, f"fps is {info.get('fps')!r}, not a positive number", restore)
    if not isinstance(info.get("features"), dict):
        raise malformed(path, f"features is {info.get('features')!r}, not a mapping", restore)
    for name, feature in info["features"].items():
        _check_feature(path, name, feature)
    needed = [STATE, ACTION, *INDEX_COLUMNS]
    if missing := [name for name in needed if name not in info["features"]]:
        raise malformed(path, f"features {missing} are missing", "Name the robot's columns as LeRobot does.")
    for key in ("data_path", *(["video_path"] if video_keys(info) else [])):
        if not template_is_usable(info.get(key)):
            raise malformed(path, f"{key} is {info.get(key)!r}, not a path template", restore)
    return info


def _check_feature(path: Path, name: str, feature: Any) -> None:
    if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
        raise malformed(path, f"feature {name!r} has no dtype", "Restore the file from its source.")
    if feature["dtype"] == "image":
        fix = "Re-encode it as video with LeRobot first."
        raise malformed(path, f"camera {name!r} is stored as images, this reader knows video only", fix)
    shape = feature.get("shape")
    is_video = feature["dtype"] == "video"
    if not isinstance(shape, list) or not all(type(side) is int and side > 0 for side in shape):
        raise malformed(path, f"feature {name!r} has the shape {shape!r}", "Restore the file from its source.")
    if is_video and (len(shape) != 3 or shape[2] != 3):
        fix = "Leave cameras out that are not RGB, with LeRobot's dataset tools."
        raise malformed(path, f"camera {name!r} has the shape {shape!r}, not [height, width, 3]", fix)


def video_keys(info: Mapping[str, Any]) -> list[str]:
    """Names of the video features, in the order of `info.json`."""
    return [name for name, feature in info["features"].items() if feature["dtype"] == "video"]


def write_tasks(root: Path, tasks: list[str]) -> None:
    """Write the instructions, in the order of their index, so that pandas finds them as an index named `task`."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column | {"metadata": None} for column in columns],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    write_table(root / TASKS_PATH, [table.replace_schema_metadata({"pandas": json.dumps(pandas)})])


def read_tasks(root: Path) -> dict[int, str]:
    """Read task index -> instruction. The rows may be in any order."""
    path = root / TASKS_PATH
    table = read_table(path)
    texts = [name for name in ("task", "__index_level_0__") if name in table.column_names]
    if not texts or "task_index" not in table.column_names:
        problem = f"it has the columns {table.column_names}, not task_index and task"
        raise malformed(path, problem, "Restore the file from its source.")
    tasks = dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    if len(tasks) != table.num_rows or not all(type(i) is int and type(text) is str for i, text in tasks.items()):
        raise malformed(path, "its rows are not distinct numbers with texts", "Restore the file from its source.")
    return tasks


def write_statistics(root: Path, statistics: Mapping[str, Statistics]) -> None:
    """Write `stats.json`."""
    nested = {name: {key: value.tolist() for key, value in stats.items()} for name, stats in statistics.items()}
    write_json(root / STATS_PATH, nested)


def read_statistics(root: Path) -> dict[str, Statistics]:
    """Read `stats.json`: feature -> statistic -> array."""
    path = root / STATS_PATH
    stats = read_json(path)
    for name, values in stats.items():
        if not isinstance(values, dict) or not all(_is_numbers(value) for value in values.values()):
            raise malformed(path, f"the statistics of {name!r} are not numbers", "Restore the file from its source.")
    return {name: {key: np.asarray(value) for key, value in values.items()} for name, values in stats.items()}


def _is_numbers(value: Any) -> bool:
    """Whether JSON holds numbers, or lists of equal length of them."""
    if not isinstance(value, list):
        return type(value) in (int, float, bool)
    return len({len(item) if isinstance(item, list) else -1 for item in value}) <= 1 and all(map(_is_numbers, value))
