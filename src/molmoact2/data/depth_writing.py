"""Writing depth labels, episode by episode, as a companion dataset that appears when it is complete.

It is written under a name that ends in `.partial`. A labelling that was interrupted, also by kill -9, keeps its
finished episodes, and the same labelling goes on after them.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from molmoact2.data.curation.writing import names_of
from molmoact2.data.depth_labels import CameraLabels
from molmoact2.data.depth_run import PARTS, RUN_PATH, LabelRun, column_name, read_run
from molmoact2.data.errors import require
from molmoact2.data.files import INFO_PATH, write_json
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.schema import ACTION, STATE, DatasetSchema, Episode
from molmoact2.data.writer import DatasetWriter

PARTIAL_SUFFIX = ".partial"


class LabelWriter:
    """Adds the labels of one episode after the other. Made by `open_label_writer`."""

    def __init__(self, dataset: LeRobotDataset, run: LabelRun, writer: DatasetWriter) -> None:
        self._dataset, self._run, self._writer = dataset, run, writer

    @property
    def root(self) -> Path:
        """Folder that is written."""
        return self._writer.root

    @property
    def todo(self) -> range:
        """Episodes of the dataset that have no labels yet, in the order in which they are to be added."""
        return self._run.episodes[self._writer.num_episodes :]

    def add(self, labels: Mapping[str, CameraLabels]) -> None:
        """Write the labels of the first episode of `todo`, by camera; when this returns, they are safely on disk.

        Raises ValueError, before anything is written, when they have another shape than the episode.
        """
        record, task_index = self._dataset.episodes[self.todo[0]], self._dataset.column("task_index")
        rows = slice(record.from_index, record.to_index)
        columns = {column_name(camera, part): vars(found)[part] for camera, found in labels.items() for part in PARTS}
        self._writer.add_episode(
            Episode(
                images={},
                state=self._dataset.states[rows].astype(np.float32),
                action=self._dataset.actions[rows].astype(np.float32),
                task=self._dataset.tasks[int(task_index[record.from_index])],
                extras=columns,
            )
        )


@contextmanager
def open_label_writer(dataset: LeRobotDataset, run: LabelRun, folder: Path) -> Iterator[LabelWriter]:
    """Begin or continue the labels of one shard; they are put in place when the block ends with nothing left to do.

    Nobody else can write them at the same time. Raises ValueError when `folder` holds other labels, or something else.
    """
    place = run.place(folder)
    partial = place.absolute().with_name(place.absolute().name + PARTIAL_SUFFIX)
    require(not place.exists(), f"{place} is there already. Choose a new folder.")
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
        writer = LabelWriter(dataset, run, dataset_writer := _open_partial(partial, dataset, run))
        yield writer
        if not writer.todo:
            dataset_writer.finalize()
            os.replace(partial, place)


def find_labels(run: LabelRun, folder: Path) -> Path | None:
    """Where this shard is, if it is finished; ValueError when something else is there."""
    place = run.place(folder)
    if not place.exists():
        return None
    require((place / RUN_PATH).is_file(), f"{place} is in the way, and holds no depth labels. Choose another output.")
    _check_same(place, run)
    return place


def _open_partial(root: Path, dataset: LeRobotDataset, run: LabelRun) -> DatasetWriter:
    """The unfinished labels at `root`, or new ones."""
    if (root / RUN_PATH).is_file() and (root / INFO_PATH).is_file():
        _check_same(root, run)
        return DatasetWriter.resume(root)
    is_ours = {entry.name for entry in root.iterdir()} <= {"meta"}
    require(is_ours, f"{root} is in the way, and it holds no labels. Move it, or choose another output.")
    shutil.rmtree(root / "meta", ignore_errors=True)
    writer = DatasetWriter(root, label_schema(dataset, run))
    write_json(root / RUN_PATH, run.as_json())
    return writer


def label_schema(dataset: LeRobotDataset, run: LabelRun) -> DatasetSchema:
    """State, action and label columns; ValueError for a dataset at no whole rate."""
    whole = float(dataset.fps).is_integer()
    require(whole, f"{dataset.root} has {dataset.fps} frames per second; a dataset that we write has a whole number.")
    return DatasetSchema(
        fps=int(dataset.fps),
        robot_type=str(dataset.info.get("robot_type")),
        state_names=names_of(dataset, STATE),
        action_names=names_of(dataset, ACTION),
        image_sizes={},
        extras=run.columns(),
    )


def _check_same(root: Path, run: LabelRun) -> None:
    """Refuse to go on with labels that were made in another way."""
    before, now = read_run(root).as_json(), run.as_json()
    changes = [f"{name} was {before[name]!r}, is {now[name]!r}" for name in now if before[name] != now[name]]
    fix = "Choose another output, remove it, or repeat the earlier settings to continue it."
    require(not changes, f"{root} holds depth labels that were made in another way: {'; '.join(changes)}. {fix}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"Another process is writing to {folder}. Wait for it, or choose another output.") from None
