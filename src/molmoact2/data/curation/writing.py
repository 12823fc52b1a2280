"""Writing what was selected: a list as JSON, or a new dataset in which every span is an episode.

A dataset is written beside its place and renamed when it is complete. One that was interrupted, also by kill -9, is
continued by the same selection and started over by another.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from molmoact2.data.curation.idle import Span
from molmoact2.data.curation.selection import Selection
from molmoact2.data.errors import require
from molmoact2.data.files import INFO_PATH, read_json, write_json
from molmoact2.data.quality.opening import dimension_names
from molmoact2.data.reader import Frame, LeRobotDataset
from molmoact2.data.schema import ACTION, INDEX_COLUMNS, STATE, DatasetSchema, Episode, ExtraColumn
from molmoact2.data.writer import DatasetWriter

SELECTION_PATH = "meta/selection.json"
"""In the new dataset: what was kept of which source, and what was dropped."""
PARTIAL_SUFFIX = ".partial"
WIDER = {"float16": "float32", **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16", "uint32"), "int64")}
"""Types that our writer does not know -> one that holds all their values."""


def write_list(path: Path, selections: Sequence[Selection]) -> None:
    """Write one selection as it is, or several as {"sources": {source: selection}}, atomically."""
    lists = {selection.source: selection.to_dict() for selection in selections}
    write_json(path, next(iter(lists.values())) if len(lists) == 1 else {"sources": lists})


def write_dataset(dataset: LeRobotDataset, selection: Selection, output: Path) -> None:
    """Write the spans of `selection` as the episodes of a new dataset at `output`, showing a progress bar.

    Video is encoded again. Time, indices and tasks are written anew; all numeric columns are kept, narrow integers as
    int64 and half floats as float32.

    Raises:
        ValueError: when nothing is selected, `output` exists, or the dataset has features that cannot be written
            (texts, sound, depth maps, images of odd size).
    """
    require(bool(selection.spans), f"Nothing is left of {selection.source}, so there is no dataset to write.")
    require(not output.exists(), f"{output} is there already. Choose a new folder.")
    writer = open_partial(output.with_name(output.name + PARTIAL_SUFFIX), schema_for(dataset), selection)
    todo = selection.spans[writer.num_episodes :]
    for span in track(todo, f"Writing {output.name}", console=Console(stderr=True), transient=True):
        writer.add_episode(episode_of(dataset, span, writer.schema))
    writer.finalize()
    os.replace(writer.root, output)


def open_partial(root: Path, schema: DatasetSchema, selection: Selection) -> DatasetWriter:
    """The unfinished dataset of this selection, or a new one in place of what is at `root`."""
    document = selection.to_dict()
    path = root / SELECTION_PATH
    if path.is_file() and (root / INFO_PATH).is_file() and read_json(path) == document:
        return DatasetWriter.resume(root)
    is_ours = not root.exists() or {entry.name for entry in root.iterdir()} <= {"meta", "data", "videos"}
    require(is_ours, f"{root} is in the way, and it is no dataset. Move it, or choose another output.")
    shutil.rmtree(root, ignore_errors=True)
    writer = DatasetWriter(root, schema)
    write_json(path, document)
    return writer


def schema_for(dataset: LeRobotDataset) -> DatasetSchema:
    """The schema of a dataset that any program wrote; ValueError when our writer cannot hold it."""
    require(
        not dataset.other_features and float(dataset.fps).is_integer(),
        f"{dataset.root}: a new dataset cannot hold the features {list(dataset.other_features)} at {dataset.fps} Hz: "
        "only numbers and RGB cameras, at a whole rate. Write a list instead, by an output that ends in .json.",
    )
    names = {name: names_of(dataset, name) for name in dataset.column_names if name not in INDEX_COLUMNS}
    dtypes = {name: dataset.column(name).dtype.name for name in names}
    extras = {
        name: ExtraColumn(dtype=WIDER.get(dtypes[name], dtypes[name]), names=names[name])
        for name in names
        if name not in (STATE, ACTION)
    }
    return DatasetSchema(
        fps=int(dataset.fps),
        robot_type=str(dataset.info.get("robot_type")),
        state_names=names[STATE],
        action_names=names[ACTION],
        image_sizes={camera: dataset.image_size(camera) for camera in dataset.cameras},
        extras=extras,
    )


def names_of(dataset: LeRobotDataset, name: str) -> tuple[str, ...]:
    """Names of a column's dimensions, numbered where it has none. Raises ValueError for a column of matrices."""
    shape = dataset.features[name]["shape"]
    require(len(shape) == 1, f"{dataset.root}: the column {name!r} has the shape {shape}, rows of one dimension only.")
    return dimension_names(dataset.features[name]) or tuple(f"{name}_{index}" for index in range(shape[0]))


def episode_of(dataset: LeRobotDataset, span: Span, schema: DatasetSchema) -> Episode:
    """The frames of a span as an episode of its own."""
    start = dataset.episodes[span.episode].from_index
    rows = slice(start + span.first, start + span.last + 1)
    frames: list[Frame] = [dataset.frame(row) for row in range(rows.start, rows.stop)]
    return Episode(
        images={camera: np.stack([frame.images[camera] for frame in frames]) for camera in dataset.cameras},
        state=dataset.states[rows].astype(np.float32),
        action=dataset.actions[rows].astype(np.float32),
        task=instruction_of(dataset, span, frames[0]),
        extras=_columns(dataset, rows, schema.extras),
    )


def instruction_of(dataset: LeRobotDataset, span: Span, first: Frame) -> str:
    """What the first frame of the span says, or another text of the episode where that is empty."""
    texts = (first.task, *dataset.episodes[span.episode].tasks)
    return next(text for text in texts if text.strip())


def _columns(dataset: LeRobotDataset, rows: slice, extras: Mapping[str, ExtraColumn]) -> dict[str, NDArray[Any]]:
    return {name: dataset.column(name)[rows].astype(extra.dtype) for name, extra in extras.items()}
