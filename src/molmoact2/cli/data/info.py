"""`molmoact2 data info SOURCE`: what a dataset is, without decoding any of it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.data.description import Description

MOST_TASKS = 5
"""Tasks and missing files that are listed; of the rest, the number is said."""


@dataclass(frozen=True)
class Info:
    """Say what a dataset is: robot, cameras, episodes, tasks.

    Reads LeRobot v3.0 and v2.1. Nothing is decoded, so that large datasets are answered quickly; whether what is there
    is any good is a question for `molmoact2 data check`.
    """

    source: Positional[str]
    """Folder of the dataset, or its id on the Hugging Face hub."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        """Print the description."""
        from molmoact2.data.datasets import open_dataset
        from molmoact2.data.description import describe_dataset

        description = describe_dataset(open_dataset(self.source, revision=self.revision))
        console = Console()
        if self.json:
            console.print_json(data=asdict(description))
            return
        console.print(head_table(description))
        console.print(feature_table(description))


def head_table(description: "Description") -> Table:
    """What the dataset is, one fact per line."""
    lost, incomplete = description.missing_videos, map(str, description.episodes_without_video)
    rows = {
        "dataset": description.source,
        "format": f"LeRobot {description.version}",
        "robot": description.robot or "not said",
        "fits": ", ".join(description.fits) or "no embodiment that is known here",
        "episodes": f"{description.num_episodes:,}",
        "frames": f"{description.num_frames:,} at {description.fps:g} per second, {description.hours:.2f} hours",
        "tasks": shortened([f"{task}  ({count:,} frames)" for task, count in description.tasks.items()], "\n"),
        "missing": f"{len(lost)} video files, of the episodes {shortened(list(incomplete), ', ')}"
        if lost
        else "nothing",
        "not read": ", ".join(f"{name} ({dtype})" for name, dtype in description.not_read.items()),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=10, style="cyan")
    for name, value in rows.items():
        table.add_row(name, Text(value or "nothing"))
    table.add_row()
    return table


def feature_table(description: "Description") -> Table:
    """Columns and cameras, with their shapes and names."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title="columns and cameras")
    for name in ("name", "dtype", "shape", "dimensions"):
        table.add_column(name, overflow="fold")
    for name, feature in description.features.items():
        table.add_row(name, feature.dtype, " x ".join(map(str, feature.shape)), ", ".join(feature.names))
    for camera, (height, width) in description.cameras.items():
        table.add_row(camera, "camera", f"{height} x {width}", "height, width")
    return table


def shortened(items: list[str], separator: str) -> str:
    """The first few items, and how many more there are."""
    more = [f"and {len(items) - MOST_TASKS:,} more" for _ in items[MOST_TASKS : MOST_TASKS + 1]]
    return separator.join(items[:MOST_TASKS] + more)
