"""LeRobot v2.1 as other programs write it, made of the episodes of a test."""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from molmoact2.data import DatasetSchema, Episode, VideoEncoding
from molmoact2.data.metadata import new_info
from molmoact2.data.schema import CAMERA_PREFIX, INDEX_COLUMNS
from molmoact2.data.statistics import image_statistics, pixel_histogram
from molmoact2.data.video import encode_video

DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
CHUNK = 3
"""Episodes per chunk; so few that tests have several."""


def write_old(
    root: Path,
    schema: DatasetSchema,
    episodes: Sequence[Episode],
    *,
    image_format: str = "",
    features: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Path:
    """Write v2.1. Cameras become video, or pictures of `image_format` in the data files.

    `features` and `columns` (name -> a value per frame, the same in every frame) are added as they are.
    """
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    info = new_info(schema, VideoEncoding(), data_file_mb=1, video_file_mb=1)
    info |= {"codebase_version": "v2.1", "chunks_size": CHUNK, "data_path": DATA, "video_path": VIDEO}
    info |= {"total_episodes": len(episodes), "total_tasks": len(tasks), "splits": {"train": f"0:{len(episodes)}"}}
    info["total_frames"] = sum(len(episode.action) for episode in episodes)
    if image_format:
        for camera in schema.image_sizes:
            info["features"][CAMERA_PREFIX + camera] |= {"dtype": "image"}
    info["features"] |= features or {}
    lines: dict[str, list[Any]] = {"episodes": [], "episodes_stats": [], "tasks": []}
    first = 0
    for index, episode in enumerate(episodes):
        table = _table(schema, episode, index, first, tasks.index(episode.task), columns or {})
        for camera, images in episode.images.items():
            key = CAMERA_PREFIX + camera
            if image_format:
                table = table.append_column(key, pa.array([_picture(image, image_format) for image in images]))
            else:
                path = root / VIDEO.format(episode_chunk=index // CHUNK, episode_index=index, video_key=key)
                encode_video(path, images, fps=schema.fps, encoding=VideoEncoding())
        path = root / DATA.format(episode_chunk=index // CHUNK, episode_index=index)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        lines["episodes"].append({"episode_index": index, "tasks": [episode.task], "length": len(episode.action)})
        lines["episodes_stats"].append({"episode_index": index, "stats": _statistics(episode)})
        first += len(episode.action)
    lines["tasks"] = [{"task_index": index, "task": task} for index, task in enumerate(tasks)]
    (root / "meta").mkdir(exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    for name, rows in lines.items():
        (root / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def change_info(root: Path, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def _table(
    schema: DatasetSchema, episode: Episode, index: int, first: int, task_index: int, more: Mapping[str, Any]
) -> pa.Table:
    length = len(episode.action)
    frames = np.arange(length)
    columns = {name: pa.array(list(np.atleast_1d(array))) for name, array in episode.columns().items()}
    numbers = ((frames / schema.fps).astype(np.float32), frames, frames * 0 + index, frames + first, task_index)
    for name, values in zip(INDEX_COLUMNS, numbers, strict=True):
        columns[name] = pa.array(np.broadcast_to(values, length))
    return pa.table(columns | {name: pa.array([value] * length) for name, value in more.items()})


def _picture(image: np.ndarray, image_format: str) -> dict[str, Any]:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format=image_format)
    return {"bytes": buffer.getvalue(), "path": "frame.png"}


def _statistics(episode: Episode) -> dict[str, Any]:
    """Of the cameras only, which is all that is read."""
    found = {}
    for camera, images in episode.images.items():
        stats = image_statistics(pixel_histogram(images), len(images))
        found[CAMERA_PREFIX + camera] = {name: stats[name].tolist() for name in ("min", "max", "mean", "std", "count")}
    return found
