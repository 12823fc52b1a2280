"""One run over a dataset: what is missing is asked for, everything is stored, and what came of it is told."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.annotation.asking import Asking, annotate, has_failed, reason_of
from molmoact2.evaluation.annotation.place import open_place, store
from molmoact2.evaluation.ledger import EPISODES_FILE, Record

MOST_NAMED = 10
"""Failed episodes that are listed."""


def run_annotation(
    dataset: LeRobotDataset, asking: Asking, folder: Path, *, episodes: Collection[int], num_workers: int
) -> list[Record]:
    """Ask about `episodes`, store the instructions in the dataset, and return the records in the dataset's order.

    Raises ValueError when there is no instruction at the end, or the endpoint cannot be used; answers are kept.
    """
    require(len(episodes) > 0, f"{dataset.root} has no episodes to annotate whose video is there.")
    require(len(dataset.cameras) > 0, f"{dataset.root} has no cameras, so there is nothing to look at.")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with (
        open_place(dataset, folder) as ledger,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        found = annotate(dataset, asking, ledger, episodes=episodes, num_workers=num_workers)
        records = list(progress.track(found, total=len(episodes), description="Annotating"))
        records.sort(key=lambda record: record["episode_index"])
        failed = [record for record in records if has_failed(record)]
        require(
            len(failed) < len(records),
            f"None of {len(records)} episodes has a usable answer; the last one because {reason_of(records[-1])}. "
            f"All answers are in {ledger.path}.",
        )
        store(dataset, records)
    return records


def say_failures(records: Sequence[Record], folder: Path) -> str:
    """Which episodes have no usable answer and why, for people; "" where all have one."""
    failed = [record for record in records if has_failed(record)]
    lines = [f"  episode {record['episode_index']}: {reason_of(record)}" for record in failed[:MOST_NAMED]]
    rest = [f"  and {len(failed) - MOST_NAMED} more"] if len(failed) > MOST_NAMED else []
    head = f"No usable answer for {len(failed)} episodes, which keep their recorded instruction. Their answers are in "
    tail = f"{folder / EPISODES_FILE}; the same command asks again."
    return "\n".join([head + tail, *lines, *rest]) if failed else ""
