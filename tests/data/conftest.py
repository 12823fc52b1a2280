"""Small datasets whose content says where it belongs, so that a misplaced row or image shows."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, ExtraColumn

CAMERAS = ("front", "wrist")
TASKS = ("pick up the red cube", "grüße den Würfel")
FPS = 15
SIZE = (32, 48)


def _images(number: int, length: int, camera_index: int) -> np.ndarray:
    """[length, 32, 48, 3] smooth images; the mean of the red channel tells the episode, of the green one the frame."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    frames = np.empty((length, *SIZE, 3))
    frames[..., 0] = 20 + (number * 7) % 200
    frames[..., 1] = (20 + 5 * (np.arange(length) % 40))[:, None, None]
    frames[..., 2] = 40 + 100 * camera_index + rows + columns / 2
    return frames.astype(np.uint8)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that is not yet on the disk, so only a power cut would show the difference."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(scope="session")
def schema() -> DatasetSchema:
    """Two joints, three actions, two small cameras and a reward."""
    return DatasetSchema(
        fps=FPS,
        robot_type="toy",
        state_names=("shoulder", "gripper"),
        action_names=("shoulder", "elbow", "gripper"),
        image_sizes=dict.fromkeys(CAMERAS, SIZE),
        extras={"next.reward": ExtraColumn(), "cube_pose": ExtraColumn(dtype="float64", names=("x", "y"))},
    )


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    """`make_episode(number, length)` gives an episode that is different for every number."""

    def make(number: int, length: int = 6) -> Episode:
        rng = np.random.default_rng(number)
        return Episode(
            images={camera: _images(number, length, index) for index, camera in enumerate(CAMERAS)},
            state=rng.normal(size=(length, 2)).astype(np.float32),
            action=rng.normal(size=(length, 3)).astype(np.float32),
            task=TASKS[number % 2],
            extras={
                "next.reward": rng.normal(size=length).astype(np.float32),
                "cube_pose": rng.normal(size=(length, 2)),
            },
        )

    return make


@pytest.fixture(scope="session")
def recorded_once(
    tmp_path_factory: pytest.TempPathFactory, schema: DatasetSchema, make_episode: Callable[..., Episode]
) -> Path:
    """A finalized dataset of the episodes 0 to 4, with 4 to 8 frames; not to be changed."""
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    with DatasetWriter(root, schema) as writer:
        for number in range(5):
            writer.add_episode(make_episode(number, 4 + number))
    return root


@pytest.fixture
def dataset_root(tmp_path: Path, recorded_once: Path) -> Path:
    """A copy of that dataset, to do with as a test likes."""
    return Path(shutil.copytree(recorded_once, tmp_path / "dataset"))
