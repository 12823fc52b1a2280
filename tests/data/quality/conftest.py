"""Material without defects: a made-up SO-101 that follows its actions, for tests to spoil."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from molmoact2.data.quality.checking import check_material
from molmoact2.data.quality.findings import Report
from molmoact2.data.quality.material import Material, Sample, VideoLength, make_vector
from molmoact2.embodiments import SO101_TABLETOP

NUM_EPISODES, LENGTH, FPS = 220, 45, 15
COLOURS, PLACES = ("red", "green", "blue"), ("plate", "tray", "left", "right")
TEXTS = tuple(f"put the {colour} cube on the {place}" for colour in COLOURS for place in PLACES)
FEW_SAMPLES = 3


def motions(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """State and action [episodes, LENGTH, 6]: smooth arcs from place to place; the state is two frames behind."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 1, LENGTH + 2)[None, :, None]
    begin, bulge, end = (rng.uniform(-1, 1, (NUM_EPISODES, 1, 6)) for _ in range(3))
    arcs = begin * (1 - time) + end * time + bulge * np.sin(np.pi * time)
    action = arcs * np.array([40, 30, 30, 20, 40, 12]) + np.array([0, -30, 30, 40, 0, 40])
    return action[:, :-2], action[:, 2:]


def images(episode: int, camera: int, frames: np.ndarray) -> np.ndarray:
    """[n, 24, 32, 3] a bright spot that moves over a gradient."""
    rows, columns = np.mgrid[:24, :32]
    centre = 4 + 20 * frames / LENGTH
    spot = 150 * np.exp(-((columns - centre[:, None, None]) ** 2 + (rows - 12 + 4 * camera) ** 2) / 8)
    return (
        np.clip(40 + 2 * rows + columns + 20 * camera + spot + episode % 20, 0, 255)[..., None]
        .repeat(3, -1)
        .astype(np.uint8)
    )


def clean_material(**changes: Any) -> Material:
    """A material without a finding, with `changes` to its fields or to `state_values`, `action_values` [frames, 6]."""
    state, action = (part.reshape(-1, 6) for part in motions())
    starts = np.arange(NUM_EPISODES) * LENGTH
    frames = np.array([0, 11, 22, 33, 44])
    names, robot = SO101_TABLETOP.state_names, changes.pop("embodiment", SO101_TABLETOP)
    material = Material(
        source="made up",
        fps=float(FPS),
        state=make_vector("state", changes.pop("state_values", state), changes.pop("state_names", names), robot),
        action=make_vector("action", changes.pop("action_values", action), changes.pop("action_names", names), robot),
        timestamps=np.tile(np.arange(LENGTH) / FPS, NUM_EPISODES).astype(np.float32),
        starts=starts,
        instructions=tuple(TEXTS[episode % len(TEXTS)] for episode in range(NUM_EPISODES)),
        cameras=SO101_TABLETOP.cameras,
        embodiment=robot,
        samples=tuple(
            Sample(camera=camera, episode=episode, frames=frames, images=images(episode, index, frames))
            for episode in range(FEW_SAMPLES)
            for index, camera in enumerate(SO101_TABLETOP.cameras)
        ),
        video_lengths=tuple(
            VideoLength(camera=camera, episode=episode, promised_frames=LENGTH, stored_frames=LENGTH)
            for camera in SO101_TABLETOP.cameras
            for episode in range(NUM_EPISODES)
        ),
        has_images=True,
    )
    return replace(material, **changes)


@pytest.fixture(scope="session")
def clean() -> Callable[..., Material]:
    """`clean(**changes)` makes a material."""
    return clean_material


@pytest.fixture(scope="session")
def clean_report() -> Report:
    """The report on material without defects."""
    return check_material(clean_material())


@pytest.fixture
def values() -> tuple[np.ndarray, np.ndarray]:
    """State and action [frames, 6] without defects, to be changed."""
    state, action = (part.reshape(-1, 6).copy() for part in motions())
    return state, action
