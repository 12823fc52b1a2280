"""Datasets of an arm that moves smoothly in the dark, for what needs actions only."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from molmoact2.data import DatasetSchema, DatasetWriter, Episode

NAMES = ("shoulder", "elbow", "gripper")


def record_motion(
    root: Path, lengths: Sequence[int], *, fps: int = 10, seed: int = 0, opening: float = 1.0, offset: float = 0.0
) -> np.ndarray:
    """Record episodes of so many frames; returns all actions [frames, 3]. The gripper goes from 0 to `opening`."""
    schema = DatasetSchema(
        fps=fps, robot_type="toy", state_names=NAMES, action_names=NAMES, image_sizes={"front": (16, 16)}
    )
    rng, actions = np.random.default_rng(seed), []
    with DatasetWriter(root, schema) as writer:
        for length in lengths:
            time_s = np.arange(length) / fps
            phase, pace = rng.uniform(0, 6, 3), rng.uniform(0.5, 3, 3)
            action = offset + 40 * np.sin(phase + pace * time_s[:, None]) + rng.normal(scale=0.5, size=(length, 3))
            action[:, 2] = opening * (np.sin(phase[2] + time_s) > 0)
            actions.append(action.astype(np.float32))
            images = {"front": np.zeros((length, 16, 16, 3), np.uint8)}
            writer.add_episode(Episode(images=images, state=actions[-1], action=actions[-1], task="wave"))
    return np.concatenate(actions)
