"""A training run of a few steps on random pictures, for the tests of training.

The network is the nano one made smaller, with weights that make every part matter from the first step on.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.data.scenes import ScenePool
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.testing import random_model, vary
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.training.config import OptimizerConfig, StageConfig, TrainConfig
from molmoact2.training.encode import ExampleEncoder, TrainExample
from molmoact2.training.examples import PlacedExample, QuestionExample
from molmoact2.training.fresh import tag_entry
from molmoact2.training.nano import nano_config, new_nano
from molmoact2.training.parallel import ALONE, World
from molmoact2.training.placed import SceneStream
from molmoact2.training.pointing import PointingHeads
from molmoact2.training.scene_questions import SceneQuestions
from molmoact2.training.start import Start
from molmoact2.training.trainer import TrainData, Trainer

SMALL = {
    "text_config": {"hidden_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 8,
                    "intermediate_size": 48},
    "vit_config": {"hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8, "intermediate_size": 48,
                   "image_default_input_size": (64, 64), "image_num_pos": 16},
    "adapter_config": {"vit_layers": (-1, -2), "hidden_size": 32, "head_dim": 8, "intermediate_size": 48,
                       "text_hidden_size": 32},
    "action_expert_config": {"hidden_size": 32, "num_layers": 2, "timestep_embed_dim": 16, "mlp_ratio": 1.5,
                             "ffn_multiple_of": 16},
    "action_mode": "both",
}  # fmt: skip
"""What differs from nano."""
IMAGE_SIZE = (64, 64)
"""Pixels; 2 x 2 image tokens per camera."""
THINGS = ("red cube", "green cube", "blue cube", "plate", "gripper")
HORIZON, JOINTS = 16, 6
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=1, epsilon=1e-4)
"""So large an epsilon that gradients which are zero but for rounding move nothing."""
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


def scene_stream(pool: ScenePool, **changes: Any) -> SceneStream:
    """Scenes of a pool."""
    given = {"tag": SO101_TABLETOP.tag, "horizon": HORIZON, "action_dim": JOINTS, "seed": 0, **changes}
    return SceneStream(pool=pool, **given)


@dataclass(frozen=True)
class SmoothMotions:
    """Scenes with smooth actions to learn; every third one ends before the horizon does."""

    scenes: SceneStream

    def example(self, number: int) -> PlacedExample:
        rng = np.random.default_rng((1, number))
        phase = rng.uniform(0, 3, JOINTS) + np.linspace(0, 2, HORIZON)[:, None]
        left = HORIZON if number % 3 else int(rng.integers(1, HORIZON))
        return replace(
            self.scenes.example(number),
            actions=np.sin(phase).astype(np.float32),
            is_valid=np.arange(HORIZON) < left,
            origin=f"motion {number}",
        )


@dataclass(frozen=True)
class Words:
    """Questions without images."""

    def example(self, number: int) -> QuestionExample:
        rng = np.random.default_rng((2, number))
        asked = " ".join(rng.choice(["red", "green", "blue"], int(rng.integers(1, 9))))
        answer = " ".join(reversed(asked.split()))
        return QuestionExample(images=(), question=f"turn around {asked}", answer=answer, origin=f"words {number}")


def small_start(**changes: Any) -> Start:
    """A small network that can flow and say its actions; `changes` are fields of its config, as of `testing.vary`."""
    entry = tag_entry(SO101_TABLETOP, state_stats=STATS, action_stats=STATS)
    config = vary(vary(nano_config(), SMALL), changes)
    model, processor = new_nano({SO101_TABLETOP.tag: entry}, seed=0, config=config)
    motions = SmoothMotions(scene_stream(scene_pool(6)))
    chunks = np.stack([motions.example(number).actions for number in range(50)])
    tokenizer = fit_action_tokenizer([chunks], vocab_size=config.num_action_tokens, longest_horizon=HORIZON)
    return Start(model=random_model(model.config, seed=0), processor=processor, action_tokenizer=tokenizer)


def small_data() -> TrainData:
    """Streams of every kind."""
    pool = scene_pool(6)
    scenes = scene_stream(pool)
    return TrainData(
        streams={
            "robot": SmoothMotions(scenes), "scenes": scenes, "questions": SceneQuestions(pool=pool, seed=0),
            "words": Words(),
        },
        held_out={"scenes": replace(scenes, in_order=True)},
        fingerprints={"pool": "random"},
    )  # fmt: skip


def small_encoder(start: Start) -> ExampleEncoder:
    """Encodes as a small run does."""
    return ExampleEncoder(
        processor=start.processor, action_tokenizer=start.action_tokenizer, config=start.model.config, seed=0
    )


def encoded(encoder: ExampleEncoder, stage: StageConfig, *names: tuple[str, int]) -> list[TrainExample]:
    """Examples by stream and number."""
    streams = small_data().streams
    return [encoder(streams[stream].example(number), stage, (number,)) for stream, number in names]


def small_stage(**changes: Any) -> StageConfig:
    """A stage in which everything is learned: flow, spoken actions, words, pointing."""
    stage = StageConfig(
        name="act",
        num_steps=2,
        examples_per_step={"robot": 3, "scenes": 1, "questions": 1, "words": 2},
        optimizer=OPTIMIZER,
        flow_samples=2,
        says_actions=True,
        state_jitter_bins=1.0,
    )
    return replace(stage, **changes)


def small_config(**changes: Any) -> TrainConfig:
    """Two stages of two steps, in float32, which are optimised in different ways."""
    other = replace(OPTIMIZER, learning_rate=2e-3, betas=(0.8, 0.9), weight_decay=0.1, clip_norm=0.5, ema_decay=0.5)
    reason = small_stage(
        name="reason", examples_per_step={"scenes": 2}, flow_samples=0, says_actions=False, optimizer=other
    )  # fmt: skip
    config = TrainConfig(
        stages=(reason, small_stage()), log_every=1, checkpoint_every=100, measure_every=100, num_workers=0,
        num_held_out=4, dtype="float32",
    )  # fmt: skip
    return replace(config, **changes)


def small_heads(start: Start) -> PointingHeads:
    """Heads that point at `THINGS`."""
    return PointingHeads.new(start.model.config.text_config.hidden_size, len(THINGS), seed=0)


def small_trainer(
    folder: Path, config: TrainConfig | None = None, *, world: World = ALONE, points: bool = True, **changes: Any
) -> Trainer:
    """A fresh trainer, the same every time; `points`: with heads; `changes` are fields of the network's config."""
    start = small_start(**changes)
    heads = small_heads(start) if points else None
    return Trainer(start, small_data(), config or small_config(), folder, heads=heads, world=world)
