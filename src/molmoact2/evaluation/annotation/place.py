"""Where annotations are kept: the ledger in a folder beside the dataset, the results in the dataset's `meta`."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from molmoact2.data.annotated_tasks import ANNOTATIONS_PATH, read_annotations, write_annotations
from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.ledger import PROTOCOL_FILE, Ledger, Record, open_ledger

PROTOCOL = {"contents": "instructions of episodes, by molmoact2 data annotate"}


def folder_beside(dataset: LeRobotDataset) -> Path:
    """The folder DATASET.annotation, which holds ledger and review page unless somebody wants them elsewhere."""
    root = dataset.root.resolve()
    return root.with_name(f"{root.name}.annotation")


@contextmanager
def open_place(dataset: LeRobotDataset, folder: Path) -> Iterator[Ledger]:
    """The ledger in `folder`; nobody else can have it open at the same time.

    Raises ValueError for a dataset that cannot be written to, or whose annotations come from elsewhere.
    """
    meta, foreign = dataset.root / "meta", dataset.root / ANNOTATIONS_PATH
    require(os.access(meta, os.W_OK), f"{meta} cannot be written to. Copy the dataset to a folder of your own.")
    require(
        not foreign.exists() or (folder / PROTOCOL_FILE).exists(),
        f"{foreign} was not written from {folder}. Move it away, or give the folder it was written from with --output.",
    )
    with open_ledger(folder, PROTOCOL) as ledger:
        yield ledger


def store(dataset: LeRobotDataset, records: Iterable[Record]) -> None:
    """Write the annotations of `records` into the dataset, and leave those of other episodes.

    An episode without an annotation has no row: what it had before is taken out.
    """
    before = read_annotations(dataset.root) if (dataset.root / ANNOTATIONS_PATH).exists() else {}
    now = {record["episode_index"]: record["annotation"] for record in records}
    annotations = {index: text for index, text in (before | now).items() if text is not None}
    columns = {name: dataset.column(name) for name in ("task_index", "episode_index")}
    write_annotations(dataset.root, annotations, **columns)
