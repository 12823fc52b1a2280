"""The training steps that are measured: fresh networks, and made-up examples of the lengths that real ones have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.networks import MEDIUM, camera_image
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.testing import vary
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.training.batch import TrainBatch, make_batches
from molmoact2.training.config import StageConfig, TrainConfig
from molmoact2.training.encode import TrainExample
from molmoact2.training.examples import QuestionExample, RobotExample, Stream
from molmoact2.training.fresh import tag_entry
from molmoact2.training.nano import INSTRUCTIONS, nano_config, new_nano
from molmoact2.training.recipes import NANO_COLOURS, NANO_POST_TRAIN
from molmoact2.training.start import Start
from molmoact2.training.trainer import DTYPES, Descended, TrainData, Trainer

SIZES: dict[str, dict[str, Any]] = {"nano": {}, "medium": MEDIUM}
"""Size -> what differs from nano."""
HORIZON, JOINTS = SO101_TABLETOP.action_horizon, len(SO101_TABLETOP.action_names)
STATS = {name: np.full(JOINTS, value) for name, value in (("min", -1.0), ("max", 1.0), ("mean", 0.0), ("std", 1.0))}
NUM_FITTED = 64
"""Chunks that the action tokenizer is fitted to."""
NOWHERE = Path("nothing-is-written")


@dataclass(frozen=True, kw_only=True)
class Motions:
    """Observations of two cameras, with a smooth chunk of actions each."""

    image_size: tuple[int, int]

    def example(self, number: int) -> RobotExample:
        """Example `number`."""
        random = np.random.default_rng(number)
        time = np.linspace(0, 1, HORIZON)[:, None] * random.uniform(0, 2, JOINTS) + random.uniform(0, 6, JOINTS)
        return RobotExample(
            images=tuple(camera_image(*self.image_size, seed=2 * number + side) for side in range(2)),
            state=random.uniform(-1, 1, JOINTS).astype(np.float32),
            instruction=INSTRUCTIONS[number % len(INSTRUCTIONS)],
            actions=np.sin(time).astype(np.float32),
            is_valid=np.ones(HORIZON, bool),
            tag=SO101_TABLETOP.tag,
            origin=f"motion {number}",
        )


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions about so many images, with answers of so many words."""

    image_size: tuple[int, int]
    num_images: int
    num_words: int

    def example(self, number: int) -> QuestionExample:
        """Example `number`."""
        return QuestionExample(
            images=tuple(camera_image(*self.image_size, seed=number + side) for side in range(self.num_images)),
            question="how many cubes are there?",
            answer=" ".join(["red cube", "plate"][number % 2 :] * self.num_words),
            origin=f"question {number}",
        )


def streams(image_size: tuple[int, int]) -> dict[str, Stream]:
    """Examples of every length."""
    return {
        "robot": Motions(image_size=image_size),
        "short": Questions(image_size=image_size, num_images=1, num_words=1),
        "long": Questions(image_size=image_size, num_images=5, num_words=20),
        "rest": Questions(image_size=image_size, num_images=0, num_words=1),
    }


def stage(**examples_per_step: int) -> StageConfig:
    """As nano is post-trained: 4 samples of every chunk, and actions spoken as well."""
    return replace(NANO_POST_TRAIN, examples_per_step=examples_per_step, augmentation=NANO_COLOURS)


def fresh(size: str) -> Start:
    """An untrained network that can flow and say its actions."""
    config = vary(vary(nano_config(), SIZES[size]), {"action_mode": "both"})
    entry = tag_entry(SO101_TABLETOP, state_stats=STATS, action_stats=STATS)
    model, processor = new_nano({SO101_TABLETOP.tag: entry}, seed=0, config=config)
    motions = Motions(image_size=(1, 1))
    chunks = np.stack([motions.example(number).actions for number in range(NUM_FITTED)])
    tokenizer = fit_action_tokenizer([chunks], vocab_size=config.num_action_tokens, longest_horizon=HORIZON)
    return Start(model=model, processor=processor, action_tokenizer=tokenizer)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One of the ways to make the same step."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    is_shared: bool = True
    """Whether all samples of a chunk share one pass over its prompt."""
    in_one_pass: bool = True
    """If they do not: whether their prompts are read at the same time."""
    checkpoint_activations: bool = False


class Learner:
    """A trainer, and one step's examples again and again."""

    def __init__(self, size: str, stage: StageConfig, **changes: Any) -> None:
        """`changes` are fields of the run's config."""
        start = fresh(size)
        config = TrainConfig(stages=(stage,), **changes)
        height, width = start.model.config.vit_config.image_default_input_size
        self.stage = stage
        self.trainer = Trainer(start, TrainData(streams=streams((height, width))), config, NOWHERE)
        self.examples = self.trainer.batches.examples(0)

    def __str__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
        lengths = sorted(map(len, self.examples))
        tokens = f"{lengths[0]} to {lengths[-1]}" if lengths[0] < lengths[-1] else f"{lengths[0]}"
        return f"{parameters / 1e6:.0f} M parameters, {len(lengths)} examples of {tokens} tokens"

    def batches(self, way: Way) -> list[TrainBatch]:
        """The passes of a step."""
        if way.is_shared:
            return make_batches(self.examples, self.stage)
        per_pass = None if way.in_one_pass else self.stage.rows_per_pass or len(self.examples)
        return make_batches(apart(self.examples), replace(self.stage, rows_per_pass=per_pass))

    def step(self, batches: list[TrainBatch], dtype: str = "bfloat16") -> Descended:
        """The trainer's own step, whatever belongs to it."""
        self.trainer.dtype = DTYPES[dtype]
        return self.trainer._descend(self.stage, 0, batches)


def apart(examples: Sequence[TrainExample]) -> list[TrainExample]:
    """The examples once for each of their samples, sample by sample: the same losses, but prompts are not shared."""
    found = [(example, example.action) for example in examples if example.action is not None]
    counts = {len(action.t) for _, action in found}
    return [
        replace(example, action=replace(action, noise=action.noise[k : k + 1], t=action.t[k : k + 1]))
        for k in range(max(counts))
        for example, action in found
    ]
