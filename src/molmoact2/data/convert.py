"""Other formats become LeRobot v3.0: LeRobot v2.1, and the RLDS data sets of Open X-Embodiment.

A dataset is written under another name beside its place and moved there when it is complete. A conversion that was
killed leaves nothing under the final name; the next one begins anew.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from molmoact2.data.datasets import locate_dataset
from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.mapping import RldsMapping, mapping_for
from molmoact2.data.metadata import OLD_VERSION, video_keys
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.rlds import RldsEpisode, is_rlds, open_rlds
from molmoact2.data.schema import DatasetSchema, Episode
from molmoact2.data.upgrade import upgrade
from molmoact2.data.writer import DatasetWriter


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was converted."""

    source: str
    """Its format, for instance "LeRobot v2.1"."""
    num_episodes: int
    num_frames: int
    pictures: str
    """What was done with them, in words."""
    left_out: tuple[int, ...] = ()
    """Episodes of the source that are not in the new dataset, because their video is missing."""
    black_episodes: dict[str, int] = field(default_factory=dict)
    """Camera -> episodes in which all its pictures are black: it was not there, or was covered."""


def convert_dataset(
    source: str | Path,
    output: str | Path,
    *,
    revision: str | None = None,
    only_with_video: bool = False,
    mapping: Path | None = None,
    splits: Sequence[str] = (),
    show_progress: bool = True,
) -> Conversion:
    """Write `source` as a LeRobot v3.0 dataset to `output`.

    Args:
        source: a folder with LeRobot v2.1 or RLDS data, or the hub id of a LeRobot v2.1 dataset.
        output: the folder of the new dataset, which must not exist yet, or be empty.
        revision: branch, tag or commit of a hub id.
        only_with_video: leave out the episodes whose video is missing (v2.1); otherwise they are refused.
        mapping: a TOML file that says what the features of an RLDS data set mean; BridgeData's are known.
        splits: which splits of an RLDS data set, one after the other; all by default.
        show_progress: whether to draw a bar on standard error.

    Raises:
        ValueError: naming the file, for a source that is damaged, incomplete or in another format.
    """
    folder, output = locate_dataset(source, revision), Path(output)
    is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    require(is_free, f"{output} exists already. Choose a new folder.")
    with Progress(console=Console(stderr=True), transient=True, disable=not show_progress) as progress:
        if is_rlds(folder):
            return _convert_rlds(folder, output, mapping, tuple(splits), progress)
        return _convert_old(folder, output, only_with_video, progress)


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """A folder to write a dataset to, which is moved to `output` when all went well; what a killed run left goes."""
    unfinished = output.absolute().with_name(f".{output.absolute().name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.rename(unfinished, output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert_old(folder: Path, output: Path, only_with_video: bool, progress: Progress) -> Conversion:
    """LeRobot v2.1, all of it or the episodes that are complete."""
    dataset = LeRobotDataset(folder)
    require(dataset.version == OLD_VERSION, f"{folder} is LeRobot {dataset.version} already, nothing needs converting.")
    chosen = dataset.episodes_with_video if only_with_video else tuple(range(len(dataset.episodes)))
    require(bool(chosen), f"{folder} has no episodes with all their videos, so there is nothing to convert.")
    left_out = tuple(sorted(set(range(len(dataset.episodes))) - set(chosen)))
    for path, missing in dataset.missing_videos.items():
        fix = "Copy it, or convert the episodes that are complete with --only-with-video."
        expect(set(missing) <= set(left_out), path, f"the video of episode {missing[0]} is missing", fix)
    steps = len(chosen) * (1 + len(video_keys(dataset.info)))
    bar = progress.add_task(f"Converting {len(chosen)} episodes", total=steps)
    with appearing(output) as root:
        upgrade(dataset, root, chosen, lambda: progress.advance(bar))
        new = LeRobotDataset(root)
    return Conversion(
        source=f"LeRobot {OLD_VERSION}",
        num_episodes=len(new.episodes),
        num_frames=len(new),
        pictures="unchanged, nothing was encoded again",
        left_out=left_out,
    )


def _convert_rlds(
    folder: Path, output: Path, mapping_file: Path | None, splits: tuple[str, ...], progress: Progress
) -> Conversion:
    """RLDS, episode by episode."""
    rlds = open_rlds(folder)
    mapping = mapping_for(rlds.name, mapping_file)
    splits = splits or tuple(rlds.shards)
    bar = progress.add_task(f"Converting {', '.join(splits)} of {rlds.name}", total=rlds.num_episodes(splits))
    black = Counter[str]()
    writer: DatasetWriter | None = None
    with appearing(output) as root:
        for record in rlds.episodes(splits):
            episode = _episode(record, mapping)
            writer = writer or DatasetWriter(root, _schema(episode, mapping))
            _add(writer, episode, record)
            black.update(camera for camera, images in episode.images.items() if not images.any())
            progress.advance(bar)
        if writer is None:
            raise ValueError(f"{folder} has no episodes in {', '.join(splits)}, so there is nothing to convert.")
        writer.finalize()
    return Conversion(
        source=f"RLDS {rlds.name}",
        num_episodes=writer.num_episodes,
        num_frames=writer.num_frames,
        pictures="encoded anew as H.264",
        black_episodes=dict(black),
    )


def _add(writer: DatasetWriter, episode: Episode, record: RldsEpisode) -> None:
    try:
        writer.add_episode(episode)
    except ValueError as error:
        raise ValueError(f"{record.path}: the episode at byte {record.offset} cannot be written. {error}") from error


def _schema(episode: Episode, mapping: RldsMapping) -> DatasetSchema:
    """What all episodes are like, judged by the first."""
    return DatasetSchema(
        fps=mapping.fps,
        robot_type=mapping.robot_type,
        state_names=mapping.names("state", episode.state.shape[1]),
        action_names=mapping.names("action", episode.action.shape[1]),
        image_sizes={camera: images.shape[1:3] for camera, images in episode.images.items()},
    )


def _episode(record: RldsEpisode, mapping: RldsMapping) -> Episode:
    """One record in the words of LeRobot."""
    texts = record.texts(mapping.instruction)
    images = {camera: record.images(name) for camera, name in mapping.cameras.items()}
    state, action = _joined(record, mapping.state), _joined(record, mapping.action)
    lengths = {len(texts), len(state), len(action), *map(len, images.values())}
    place = f"the episode at byte {record.offset}"
    expect(len(lengths) == 1, record.path, f"{place} has features of different lengths: {sorted(lengths)}")
    expect(len(set(texts)) == 1, record.path, f"{place} has {len(set(texts))} instructions, not one")
    task = texts[0].strip() or mapping.no_instruction
    if not task:
        fix = 'Say in a mapping what to write instead, for instance no_instruction = "do something useful".'
        raise malformed(record.path, f"{place} has an empty instruction", fix)
    return Episode(images=images, state=state, action=action, task=task)


def _joined(record: RldsEpisode, names: Sequence[str]) -> NDArray[np.float32]:
    """Some tensors side by side, [T, d]."""
    parts = [record.numbers(name) for name in names]
    lengths = sorted({len(part) for part in parts})
    problem = f"in the record at byte {record.offset}, {list(names)} have different lengths: {lengths}"
    expect(len(lengths) == 1, record.path, problem)
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).astype(np.float32)
