"""Depth codes of a dataset: a companion dataset beside it (LeRobot v3.0), with the same episodes and no video.

    COMPANION/meta/depth.json              how the labels were made, and of which dataset
    COMPANION/data/...                     state and action as in the dataset, and for each labelled camera:
        depth.CAMERA.codes                 int64 [cells]   the codes of the frame's own depth map, row by row
        depth.CAMERA.buffer_codes          int64 [cells]   the codes that a policy remembers by then: what is learned
        depth.CAMERA.updated               bool [cells]    whether the cell changed since the frame before

Made in shards, COMPANION holds such a dataset of consecutive episodes for each: shard-0-of-4/ and so on.
Facts: training.md G.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.depth_run import PARTS, RUN_PATH, LabelRun, column_name, read_run
from molmoact2.data.errors import require
from molmoact2.data.frame_cache import fingerprint
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.buffer import buffer_codes
from molmoact2.registry import unknown

RELABEL = "Label the dataset again with `molmoact2 depth label`."
SAME_IN_ALL_SHARDS = (
    "dataset", "num_episodes", "num_frames", "source", "unit", "cameras", "codec", "num_codes", "side", "scale"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraLabels:
    """The labels of one camera, for some frames."""

    codes: NDArray[np.int64]
    """[frames, cells] of each frame's own depth map."""
    buffer_codes: NDArray[np.int64]
    """[frames, cells] at the last update of each cell."""
    updated: NDArray[np.bool_]
    """[frames, cells] True where the cell changed since the frame before; everywhere in the first of an episode."""


class DepthLabels:
    """The labels of all frames of a dataset, checked against it. Made by `open`."""

    def __init__(self, run: LabelRun, labels: Mapping[str, CameraLabels]) -> None:
        self.run = run
        """How they were made; its shard is the first one."""
        self._labels = labels

    @classmethod
    def open(cls, folder: str | Path, dataset: LeRobotDataset) -> "DepthLabels":
        """Open the labels of `dataset`, all shards of them.

        Raises:
            ValueError: the folder holds no labels, shards are missing or disagree, the labels belong to another
                dataset or to an earlier state of this one, or they are damaged.
        """
        shards = _shards(Path(folder))
        run = next(iter(shards.values()))
        own = fingerprint(dataset.root)
        require(
            (run.dataset, run.num_episodes, run.num_frames) == (own, len(dataset.episodes), len(dataset)),
            f"{folder} holds the depth labels of another dataset, or {dataset.root} has changed since: they were made "
            f"for {run.num_episodes} episodes and {run.num_frames} frames with the fingerprint {run.dataset}, it has "
            f"{len(dataset.episodes)} and {len(dataset)} with {own}. {RELABEL}",
        )
        parts = [read_labels(root, shard, dataset) for root, shard in shards.items()]
        return cls(run, {camera: _joined([part[camera] for part in parts]) for camera in run.cameras})

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that have labels."""
        return self.run.cameras

    @property
    def codec_fingerprint(self) -> str:
        """Of the codec that the codes belong to."""
        return self.run.codec

    @property
    def num_codes(self) -> int:
        """Size of that codec's codebook."""
        return self.run.num_codes

    def codes(self, camera: str) -> NDArray[np.int64]:
        """[frames, cells] of each frame's own depth map, in the order of the dataset."""
        return self._of(camera).codes.astype(np.int64)

    def buffer_codes(self, camera: str) -> NDArray[np.int64]:
        """[frames, cells] at the last update of each cell: what is learned."""
        return self._of(camera).buffer_codes.astype(np.int64)

    def updated(self, camera: str) -> NDArray[np.bool_]:
        """[frames, cells] True where the cell changed since the frame before; everywhere in the first of an episode."""
        return self._of(camera).updated

    def _of(self, camera: str) -> CameraLabels:
        if camera not in self.cameras:
            raise unknown("camera with depth labels", camera, self.cameras)
        return self._labels[camera]


def _shards(folder: Path) -> dict[Path, LabelRun]:
    """The finished companion datasets in a folder, in order; ValueError unless they are one labelling, complete."""
    found = [path.parents[1] for path in (*folder.glob(RUN_PATH), *folder.glob(f"shard-*-of-*[0-9]/{RUN_PATH}"))]
    fix = f"{RELABEL} An unfinished labelling ends in .partial; the same command continues it."
    require(len(found) > 0, f"{folder} holds no finished depth labels. {fix}")
    runs = {root: read_run(root) for root in found}
    shards = dict(sorted(runs.items(), key=lambda item: item[1].shard))
    numbers = [run.shard for run in shards.values()]
    count = max(count for _, count in numbers)
    require(
        numbers == [(index, count) for index in range(count)],
        f"{folder} needs each of the shards 0/{count} to {count - 1}/{count} once, it has "
        f"{', '.join(f'{index}/{total}' for index, total in numbers)}. Label those that are missing with --shard, and "
        "remove what overlaps.",
    )
    for name in SAME_IN_ALL_SHARDS:
        values = {str(run.as_json()[name]) for run in shards.values()}
        require(len(values) == 1, f"The shards in {folder} disagree on their {name}: {sorted(values)}. {RELABEL}")
    return shards


def read_labels(root: Path, run: LabelRun, dataset: LeRobotDataset) -> dict[str, CameraLabels]:
    """The labels of one shard at `root`, by camera, codes in the smallest type that holds them.

    Raises ValueError, naming `root`, when they do not fit the dataset, or are damaged.
    """
    shard = LeRobotDataset(root)
    lengths = [record.length for record in shard.episodes]
    expected = [dataset.episodes[index].length for index in run.episodes]
    wrong = [index for index, pair in enumerate(zip(lengths, expected, strict=False)) if len(set(pair)) > 1]
    first = [f"; episode {run.episodes[i]} is {lengths[i]} frames long in place of {expected[i]}" for i in wrong[:1]]
    counts = f"{len(lengths)} episodes of {sum(lengths)} frames in place of {len(expected)} of {sum(expected)}"
    require(lengths == expected, f"{root} is out of step with {dataset.root}: {counts}{''.join(first)}. {RELABEL}")
    start = dataset.episodes[run.episodes[0]].from_index
    states = dataset.states[start : start + len(shard)].astype(np.float32)
    is_same = np.array_equal(shard.states, states)
    require(is_same, f"{root} is out of step with {dataset.root}: its states are others. {RELABEL}")
    missing = sorted(run.columns().keys() - set(shard.column_names))
    require(not missing, f"{root} lacks the columns {missing}. {RELABEL}")
    labels = {camera: _read_camera(root, camera, shard, run) for camera in run.cameras}
    for camera, found in labels.items():
        _check_buffer(root, camera, found, shard, run)
    return labels


def _read_camera(root: Path, camera: str, shard: LeRobotDataset, run: LabelRun) -> CameraLabels:
    names = {part: column_name(camera, part) for part in PARTS}
    return CameraLabels(**{part: _compact(root, name, shard.column(name), run) for part, name in names.items()})


def _joined(parts: Sequence[CameraLabels]) -> CameraLabels:
    """Those of consecutive frames as one."""
    return CameraLabels(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in PARTS})


def _compact(root: Path, name: str, values: NDArray[Any], run: LabelRun) -> NDArray[Any]:
    """A label column in the smallest type that holds it; ValueError unless it is one."""
    expected = run.columns()[name].dtype
    is_right = values.ndim == 2 and values.shape[1] == run.num_cells and values.dtype.name == expected
    found = f"{values.dtype} {list(values.shape)}, not {expected} [frames, {run.num_cells}]"
    require(is_right, f"{root}: the column {name} is {found}. {RELABEL}")
    dtype, count = {"bool": (bool, 2), "int64": (np.min_scalar_type(run.num_codes - 1), run.num_codes)}[expected]
    outside = np.flatnonzero(((values < 0) | (values.astype(np.int64, copy=False) >= count)).any(axis=1))
    problem = f"has codes outside 0 to {count - 1} in {len(outside)} frames, the first of them frame {[*outside, 0][0]}"
    require(not len(outside), f"{root}: the column {name} {problem}. {RELABEL}")
    return values.astype(dtype)


def _check_buffer(root: Path, camera: str, labels: CameraLabels, shard: LeRobotDataset, run: LabelRun) -> None:
    """Refuse buffer codes that are not what the codes and the updates make of an episode."""
    for record, episode_index in zip(shard.episodes, run.episodes, strict=True):
        rows = slice(record.from_index, record.to_index)
        codes, updated = labels.codes[rows].astype(np.int64), labels.updated[rows]
        is_right = updated[0].all() and np.array_equal(labels.buffer_codes[rows], buffer_codes(codes, updated))
        problem = f"the buffer codes of camera {camera!r} in episode {episode_index} do not follow from its codes"
        require(bool(is_right), f"{root}: {problem} and updates. {RELABEL}")
