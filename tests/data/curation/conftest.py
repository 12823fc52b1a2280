"""A small dataset with something for every rule of a curation to drop."""

import os
from pathlib import Path

import numpy as np
import pytest

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, ExtraColumn

FPS, LENGTH = 10, 40


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that is not yet on the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 episodes of one moving joint: 1 pauses in the middle, 2 is short, 3 fails, 4 has no instruction."""
    root = tmp_path_factory.mktemp("toys") / "toys"
    schema = DatasetSchema(
        fps=FPS,
        robot_type="toy",
        state_names=("a",),
        action_names=("a",),
        image_sizes={"eye": (16, 16)},
        extras={"success": ExtraColumn(dtype="bool"), "pose": ExtraColumn(names=("x", "y"))},
    )
    with DatasetWriter(root, schema) as writer:
        for number in range(8):
            length = 6 if number == 2 else LENGTH
            path = np.linspace(number, number + 4, length + 1)
            path[12:] = np.maximum(path[12:] - (path[27] - path[12]), path[12]) if number == 1 else path[12:]
            image = np.arange(length, dtype=np.uint8)[:, None, None, None] * 5 + np.zeros((length, 16, 16, 3), np.uint8)
            success = np.zeros(length, bool)
            success[-1] = number != 3
            writer.add_episode(
                Episode(
                    images={"eye": image},
                    state=path[:-1, None].astype(np.float32),
                    action=path[1:, None].astype(np.float32),
                    task="todo" if number == 4 else "move the joint",
                    extras={"success": success, "pose": np.full((length, 2), number, np.float32)},
                )
            )
    return root
