"""`molmoact2 depth label DATASET`: depth codes for every frame, in a companion dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.data.reader import LeRobotDataset
    from molmoact2.evaluation.depth_labelling import LabelSummary


@dataclass(frozen=True, kw_only=True)
class Label:
    """Write depth codes for every frame of a dataset, for training with depth.

    Depth comes from a source, a codec turns it into codes, and cells of the picture that do not change keep theirs, as
    they do when the policy acts. The labels are a companion dataset (LeRobot v3.0, no video); the dataset itself is
    not touched. A labelling that was stopped goes on with the same command.

    On several machines: --shard 0/4 on the first, --shard 1/4 on the second, and so on, all to one --output.
    """

    dataset: Positional[Path]
    """Folder of a LeRobot dataset."""
    codec: Path
    """Folder of a depth codec, as `molmoact2 depth fit` writes it."""
    source: str
    """simulator: a recording of ours is simulated again. feature:NAME: a depth column or 16-bit depth pictures of the
    dataset, {camera} in NAME stands for the camera. anything or anything:MODEL: Depth-Anything-V2 looks at the
    images; MODEL is a hub id or a folder."""
    cameras: tuple[str, ...] = ()
    """Cameras to label; by default the first of the robot."""
    output: Path | None = None
    """Folder of the companion dataset; by default beside the dataset, with "_depth" after its name."""
    shard: str = "0/1"
    """Which part of the episodes, from 0, and how many parts there are."""
    workers: int = 1
    """Processes that label; the labels do not depend on it."""
    device: str = "cpu"
    """Where codec and estimator compute."""

    def run(self) -> None:
        """Label what is missing and say what came of it."""
        from rich.console import Console

        from molmoact2.data.reader import LeRobotDataset
        from molmoact2.evaluation.depth_labelling import Labelling, label_dataset
        from molmoact2.evaluation.depth_sources import choose_source

        shard = read_shard(self.shard)
        dataset = LeRobotDataset(self.dataset)
        cameras = self.cameras or (first_camera(dataset),)
        labelling = Labelling(
            dataset=self.dataset,
            codec=self.codec,
            source=choose_source(self.source, dataset, cameras, self.device),
            cameras=cameras,
            device=self.device,
        )
        output = self.output or self.dataset.absolute().with_name(f"{self.dataset.absolute().name}_depth")
        summary = label_dataset(labelling, output, shard=shard, num_workers=self.workers)
        console = Console()
        console.print(summary_table(summary))
        console.print(f"Labels: {summary.place}", soft_wrap=True)


def read_shard(text: str) -> tuple[int, int]:
    """ "0/4" as (0, 4); ValueError when it is not that."""
    match text.split("/"):
        case [index, count] if index.isdecimal() and count.isdecimal():
            return int(index), int(count)
    raise ValueError(f"--shard is written as 0/4: its number, from 0, and how many there are; got {text!r}.")


def first_camera(dataset: "LeRobotDataset") -> str:
    """The camera that the robot's policy sees first."""
    from molmoact2.data.card import card_for

    try:
        return card_for(dataset).camera_sets[0][0]
    except (ValueError, IndexError) as error:
        raise ValueError(f"Name the camera with --cameras, one of {', '.join(dataset.cameras)}: {error}") from error


def summary_table(summary: "LabelSummary") -> Table:
    """What was labelled, per camera."""
    speed = f"{summary.num_labelled / summary.seconds:,.0f} per second" if summary.num_labelled else "all there already"
    title = f"{summary.num_episodes:,} episodes, {summary.num_frames:,} frames ({speed})"
    table = Table(title=title, title_justify="left")
    for column in ("camera", "cells updated per frame", "codes used"):
        table.add_column(column)
    for camera, share in summary.updated_share.items():
        table.add_row(camera, f"{share:.1%}", f"{summary.codes_used[camera]}")
    return table
