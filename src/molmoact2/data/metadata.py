"""The `meta/` folder of a LeRobot v3.0 dataset, but for its episodes: info.json, tasks.parquet and stats.json.

`read_info` reads that of version 2.1 as well, which differs in how it writes its path templates.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from molmoact2.data.errors import expect
from molmoact2.data.files import (
    DATA_PATH,
    FILES_PER_CHUNK,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
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
"""The version that we write."""
OLD_VERSION = "v2.1"
TEMPLATE_NAMES: dict[str, dict[str, str]] = {
    VERSION: {},
    OLD_VERSION: {"{episode_chunk": "{chunk_index", "{episode_index": "{file_index"},
}
"""Known version -> what its path templates call differently. In v2.1 the files are numbered by their one episode."""
PICTURES = ("video", "image")
"""Dtypes of features that are pictures."""
DEPTH_MARKS = ("video.is_depth_map", "is_depth_map")


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
    """Read and check `info.json`: version, totals, paths, and the features that every reader needs.

    The path templates of v2.1 are returned in the words of v3.0, so that `Shard.path` fills in both.
    """
    path = root / INFO_PATH
    info = read_json(path)
    version = info.get("codebase_version")
    problem = f"codebase_version is {version!r}, this reader knows {' and '.join(map(repr, TEMPLATE_NAMES))}"
    renamed = TEMPLATE_NAMES.get(str(version), {})
    expect(version in tuple(TEMPLATE_NAMES), path, problem, f"Convert it to {VERSION} with LeRobot first.")
    for key in ("total_episodes", "total_frames"):
        expect(_is_count(info.get(key), least=0), path, f"{key} is {info.get(key)!r}, not a count")
    fps = info.get("fps")
    is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < math.inf
    expect(is_rate, path, f"fps is {fps!r}, not a positive number")
    expect(isinstance(info.get("features"), dict), path, "it has no features")
    for name, feature in info["features"].items():
        _check_feature(path, name, feature)
    missing = set(INDEX_COLUMNS) - {name for name, feature in info["features"].items() if is_numeric(feature)}
    expect(
        not missing,
        path,
        f"the features {sorted(missing)} are missing or no numbers",
        "Name the columns as LeRobot does.",
    )
    for key in ("data_path", *["video_path" for _ in video_keys(info)[:1]]):
        template = info.get(key)
        for old, new in renamed.items():
            template = str(template).replace(old, new)
        expect(template_is_usable(template), path, f"{key} is {info.get(key)!r}, not a path template")
        info[key] = template
    return info


def _check_feature(path: Path, name: str, feature: Any) -> None:
    is_described = isinstance(feature, dict) and isinstance(feature.get("dtype"), str)
    expect(is_described, path, f"the feature {name!r} has no dtype")
    shape = feature.get("shape")
    expect(_is_shape(shape), path, f"the feature {name!r} has the shape {shape!r}")
    is_picture = feature["dtype"] not in PICTURES or len(feature["shape"]) in (2, 3)
    expect(is_picture, path, f"the camera {name!r} has the shape {shape!r}, not [height, width, channels]")


def _is_count(value: Any, *, least: int) -> bool:
    return type(value) is int and value >= least


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(side, least=1) for side in value)


def video_keys(info: Mapping[str, Any]) -> list[str]:
    """Names of the video features, depth maps included, in the order of `info.json`."""
    return [name for name, feature in info["features"].items() if feature["dtype"] == "video"]


def camera_keys(info: Mapping[str, Any]) -> list[str]:
    """Names of the features that are RGB pictures, as video or as single images, in the order of `info.json`."""
    return [name for name, feature in info["features"].items() if feature["dtype"] in PICTURES and _is_rgb(feature)]


def is_numeric(feature: Mapping[str, Any]) -> bool:
    """Whether a feature is a column of numbers."""
    return re.fullmatch(r"bool|float(16|32|64)|u?int(8|16|32|64)", feature["dtype"]) is not None


def picture_size(feature: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of a camera, whether its shape is [height, width, 3] or [3, height, width]."""
    shape = feature["shape"]
    height, width = shape[:2] if shape[2] == 3 else shape[1:]
    return height, width


def dimension_names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """What the dimensions of a column are called; empty where it does not say.

    Found as a list, as a list in a list, or under some key such as {"motors": [...]}.
    """
    return tuple(_texts(feature.get("names")))


def _texts(names: Any) -> Iterator[str]:
    """All texts in nested lists and in the values of dicts; the keys, where a dict only numbers its names."""
    match names:
        case str():
            yield names
        case dict() if all(type(value) is int for value in names.values()):
            yield from sorted(names, key=lambda name: names[name])
        case dict():
            yield from _texts(list(names.values()))
        case list():
            for item in names:
                yield from _texts(item)


def _is_rgb(feature: Mapping[str, Any]) -> bool:
    """Whether pictures have three channels and are no depth maps."""
    details = feature.get("info")
    is_depth = isinstance(details, dict) and any(details.get(key) for key in DEPTH_MARKS)
    shape = feature["shape"]
    return len(shape) == 3 and 3 in (shape[0], shape[2]) and not is_depth


def write_tasks(root: Path, tasks: Mapping[int, str]) -> None:
    """Write task index -> instruction, so that pandas finds the instructions as an index named `task`."""
    indices, texts = pa.array(tasks.keys(), pa.int64()), pa.array(tasks.values(), pa.string())
    table = pa.table({"task_index": indices, "task": texts})
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
    has_both = bool(texts) and "task_index" in table.column_names
    expect(has_both, path, f"it has the columns {table.column_names}, not task_index and task")
    tasks = dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    is_right = all(type(index) is int and type(text) is str for index, text in tasks.items())
    expect(is_right and len(tasks) == table.num_rows, path, "its rows are not distinct numbers with texts")
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
        is_right = isinstance(values, dict) and all(map(_is_numbers, values.values()))
        expect(is_right, path, f"the statistics of {name!r} are not numbers")
    return {name: {key: np.asarray(value) for key, value in values.items()} for name, values in stats.items()}


def _is_numbers(value: Any) -> bool:
    """Whether JSON holds numbers, or lists of equal length of them."""
    if not isinstance(value, list):
        return type(value) in (int, float, bool)
    return len({len(item) if isinstance(item, list) else -1 for item in value}) <= 1 and all(map(_is_numbers, value))
