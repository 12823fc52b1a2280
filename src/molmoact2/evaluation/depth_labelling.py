"""Labelling a dataset with depth codes: source -> codec -> buffer, episode by episode, in several processes.

An episode's depth goes through the codec in batches of its own, and its images through the change map one after the
other, so its labels are the same however many processes share the work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from molmoact2.data.depth_labels import CameraLabels, read_labels
from molmoact2.data.depth_run import CODEC_FOLDER, LabelRun
from molmoact2.data.depth_writing import find_labels, open_label_writer
from molmoact2.data.errors import require
from molmoact2.data.frame_cache import fingerprint as dataset_fingerprint
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.buffer import buffer_codes, updated_cells
from molmoact2.depth.codec import DepthCodec, fingerprint, load_codec, save_codec
from molmoact2.depth.sources import ExpectedDepth
from molmoact2.evaluation.depth_sources import Source, SourceChoice
from molmoact2.evaluation.workers import run_in_order
from molmoact2.registry import unknown


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What is labelled, with what; picklable, so that it can be sent to workers."""

    dataset: Path
    codec: Path
    """Folder of the codec."""
    source: SourceChoice
    cameras: tuple[str, ...]
    device: str = "cpu"
    """Where the codec computes."""

    def open_codec(self) -> DepthCodec:
        """Load the codec to its device."""
        return load_codec(self.codec).to(self.device)


@dataclass(frozen=True, kw_only=True)
class LabelSummary:
    """What a labelling came to."""

    place: Path
    """Folder of the labels, or of the shard."""
    num_episodes: int
    num_frames: int
    num_labelled: int
    """Frames that this call labelled; the others were there."""
    seconds: float
    updated_share: dict[str, float]
    """Camera -> mean share of the cells that are updated in a frame, the first frames of episodes left out."""
    codes_used: dict[str, int]
    """Camera -> how many different codes its frames have."""


def label_dataset(
    labelling: Labelling,
    output: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    num_workers: int = 1,
    show_progress: bool = True,
) -> LabelSummary:
    """Label the episodes of one shard that `output` lacks, and say what came of it.

    Raises:
        ValueError: camera, codec and source do not go together, a depth map is unusable, or `output` holds labels that
            were made in another way.
    """
    started, num_labelled = perf_counter(), 0
    dataset = LeRobotDataset(labelling.dataset)
    run = make_run(labelling, dataset, shard)
    if find_labels(run, output) is None:
        with (
            open_label_writer(dataset, run, output) as writer,
            Progress(console=Console(stderr=True), transient=True, disable=not show_progress) as progress,
        ):
            keep_codec(labelling, writer.root / CODEC_FOLDER)
            todo = writer.todo
            total = sum(dataset.episodes[index].length for index in todo)
            bar = progress.add_task(f"Labelling {labelling.dataset.name} (frames)", total=total)
            for labels in run_in_order(partial(open_work, labelling), todo, num_workers=num_workers):
                writer.add(labels)
                num_frames = len(next(iter(labels.values())).codes)
                num_labelled += num_frames
                progress.advance(bar, num_frames)
    return summarise(run, output, dataset, num_labelled=num_labelled, seconds=perf_counter() - started)


def keep_codec(labelling: Labelling, folder: Path) -> None:
    """Save the codec with its labels, if an earlier run of this labelling did not."""
    if not folder.exists():
        save_codec(labelling.open_codec(), folder)


def make_run(labelling: Labelling, dataset: LeRobotDataset, shard: tuple[int, int]) -> LabelRun:
    """What is noted about a labelling, after checking that its parts go together."""
    for camera in labelling.cameras:
        if camera not in dataset.cameras:
            raise unknown("camera", camera, dataset.cameras)
    codec, source = labelling.open_codec(), labelling.source
    require(
        codec.config.unit == source.unit,
        f"The codec {labelling.codec} was made for depth in the unit {codec.config.unit!r}, the source {source.name!r} "
        f"gives {source.unit!r}. Fit a codec on that source, or take another source.",
    )
    require(len(dataset.episodes) > 0, f"{dataset.root} has no finished episodes yet, so there is nothing to label.")
    return LabelRun(
        dataset=dataset_fingerprint(dataset.root),
        num_episodes=len(dataset.episodes),
        num_frames=len(dataset),
        source=source.name,
        unit=source.unit,
        cameras=labelling.cameras,
        codec=fingerprint(codec),
        num_codes=codec.config.num_codes,
        side=codec.config.side,
        scale=asdict(codec.config.scale),
        shard=shard,
    )


def open_work(labelling: Labelling) -> Callable[[int], dict[str, CameraLabels]]:
    """Open dataset, codec and source, and return what labels one episode with them."""
    dataset = LeRobotDataset(labelling.dataset)
    source = labelling.source.open(dataset)
    return partial(label_episode, dataset, labelling.open_codec(), source, labelling.cameras)


def label_episode(
    dataset: LeRobotDataset, codec: DepthCodec, source: Source, cameras: Sequence[str], episode_index: int
) -> dict[str, CameraLabels]:
    """The labels of all frames of one episode, by camera."""
    with one_thread():
        return {camera: label_camera(dataset, codec, source, camera, episode_index) for camera in cameras}


def label_camera(
    dataset: LeRobotDataset, codec: DepthCodec, source: Source, camera: str, episode_index: int
) -> CameraLabels:
    """The labels of all frames of one camera in one episode."""
    record = dataset.episodes[episode_index]
    expected = ExpectedDepth(
        source=source.name,
        unit=source.unit,
        episode_index=episode_index,
        camera=camera,
        num_frames=record.length,
        size=dataset.image_size(camera),
    )
    codes = codec.encode(expected.check(source.episode(dataset, record, camera)))
    updated = updated_cells(dataset.episode_images(episode_index, camera), side=codec.config.side)
    return CameraLabels(codes=codes, buffer_codes=buffer_codes(codes, updated), updated=updated)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: how sums are split among threads can move a feature to a neighbouring code."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summarise(
    run: LabelRun, output: Path, dataset: LeRobotDataset, *, num_labelled: int, seconds: float
) -> LabelSummary:
    """Read back what was written and count."""
    labels = read_labels(run.place(output), run, dataset)
    starts = [dataset.episodes[index].from_index for index in run.episodes]
    later = np.setdiff1d(
        np.arange(sum(dataset.episodes[index].length for index in run.episodes)), np.subtract(starts, starts[0])
    )
    return LabelSummary(
        place=run.place(output),
        num_episodes=len(run.episodes),
        num_frames=len(later) + len(starts),
        num_labelled=num_labelled,
        seconds=seconds,
        updated_share={camera: float(found.updated[later].mean()) for camera, found in labels.items()},
        codes_used={camera: len(np.unique(found.codes)) for camera, found in labels.items()},
    )
