"""A training run of a few steps on random pictures, for the tests of training."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from molmoact2.data.augmentation import Photometric
from molmoact2.data.scenes import ScenePool
from molmoact2.training.config import OptimizerConfig, StageConfig, TrainConfig
from molmoact2.training.encode import BatchEncoder
from molmoact2.training.examples import EpisodeSource, SceneSource
from molmoact2.training.nano import IMAGE_SIZE, new_nano
from molmoact2.training.trainer import TrainData, Trainer

THINGS = ("red cube", "green cube", "blue cube", "plate", "gripper")
HORIZON, JOINTS = 16, 6
STATS = {name: np.full(JOINTS, value) for name, value in (("min", -1.0), ("max", 1.0), ("mean", 0.0), ("std", 1.0))}


def scene_pool(count: int, seed: int = 0) -> ScenePool:
    """Random pictures in which every thing is present and seen by both cameras."""
    rng = np.random.default_rng(seed)
    shape = (count, 2, len(THINGS))
    return ScenePool(
        things=np.array(THINGS),
        cameras=np.array(("front", "wrist")),
        images=rng.integers(0, 256, (count, 2, *IMAGE_SIZE, 3), dtype=np.uint8),
        state=rng.uniform(-1, 1, (count, JOINTS)).astype(np.float32),
        place_m=rng.uniform(-0.1, 0.3, (count, len(THINGS), 3)).astype(np.float32),
        is_present=np.ones((count, len(THINGS)), bool),
        pixel=rng.uniform(0, 1, (*shape, 2)).astype(np.float32),
    )


def episodes(num_frames: int = 12) -> EpisodeSource:
    """Two episodes of random pictures."""
    pool, rng = scene_pool(num_frames, seed=1), np.random.default_rng(2)
    half = num_frames // 2
    words = ("pick up the red cube", "put the blue cube on the plate")
    return EpisodeSource(
        images={"front": pool.images[:, 0], "wrist": pool.images[:, 1]},
        state=pool.state,
        actions=rng.uniform(-1, 1, (num_frames, JOINTS)).astype(np.float32),
        episode_ends=np.repeat([half, num_frames], [half, num_frames - half]),
        instruction=np.repeat(np.array(words, object), [half, num_frames - half]),
        things=THINGS,
        place_m=pool.place_m,
        is_present=pool.is_present,
        pixel=pool.pixel,
        horizon=HORIZON,
    )


def small_config(**changes) -> TrainConfig:
    """Two stages of two steps."""
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=1)
    reason = StageConfig(name="reason", num_steps=2, scenes_per_step=2, frames_per_step=0, optimizer=optimizer)
    act = replace(reason, name="act", scenes_per_step=1, frames_per_step=2, flow_samples=2)
    config = TrainConfig(stages=(reason, act), log_every=1, checkpoint_every=100, measure_every=100)
    return replace(config, **changes)


def small_trainer(folder: Path, config: TrainConfig | None = None) -> Trainer:
    """A fresh trainer, the same every time."""
    model, processor = new_nano(STATS, STATS, seed=0)
    scenes = SceneSource(scene_pool(6), horizon=HORIZON, action_dim=JOINTS)
    encoder = BatchEncoder(
        processor=processor, tag="so101_tabletop", max_action_dim=model.config.max_action_dim, augment=Photometric()
    )
    data = TrainData(scenes=scenes, held_out=scenes, episodes=episodes())
    return Trainer(model, encoder, data, config or small_config(), folder)
