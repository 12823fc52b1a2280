"""Named runs: a recipe is a value that says everything about how a run learns; what it learns from is said elsewhere.

| recipe     | from               | learns                                                   | source       |
|------------|--------------------|----------------------------------------------------------|--------------|
| er         | Molmo2             | to answer questions about space, in words                | section 2    |
| pretrain   | Molmo2-ER          | to say actions, of many robots                           | section 4    |
| post-train | MolmoAct2-Pretrain | to flow as well; its expert does not disturb the decoder | section 4    |
| fine-tune  | MolmoAct2          | one robot                                                | section 4    |
| *-think    |                    | to say depth maps before it acts                         | section 5    |
| nano-*     |                    | the same in small, on the simulated SO-101               | docs/nano.md |

Sections are those of the paper. Batches of the releases are counted in packed rows (128 of 4,200 or 2,100 tokens); ours
in examples, as many as such rows hold on average, so that a step means the same however it is packed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from molmoact2.data.augmentation import Augmentation
from molmoact2.tokens.prompt import Style
from molmoact2.training.config import LossWeights, OptimizerConfig, StageConfig, Think, TrainConfig
from molmoact2.training.trainable import PRESETS

SCENE_SEED, HELD_OUT_SEED = 10_000_000, 20_000_000
"""First seeds of the scenes to learn from and to measure on; recordings begin at 0, evaluations at 1,000,000."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Demonstrations and scenes of the simulated SO-101."""

    tasks: tuple[str, ...] = ("pick", "plate", "push")
    num_episodes: int = 900
    """Demonstrations per task."""
    perturbed_fraction: float = 0.7
    """How many of them are disturbed, so that they show how to recover."""
    num_scenes: int = 24_000
    """Rendered scenes to point at and to ask about."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run learns."""

    train: TrainConfig
    action_mode: Literal["continuous", "discrete", "both"]
    """How the checkpoint that it makes acts."""
    mixture: str | None = None
    """Datasets of the stream "robot" unless others are named; None for none."""
    simulation: Simulation | None = None
    """What is recorded and rendered first; None for a run on data that are there."""
    think: Think | None = None
    """What makes the network think, for runs whose stages ask for depth maps."""
    expert: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `ExpertConfig` in which an action expert that the run adds differs from the usual one."""


RELEASED = OptimizerConfig(
    learning_rate=1e-5, vision_factor=0.5, connector_factor=0.5, expert_factor=5.0, warmup_steps=200,
    betas=(0.9, 0.95), epsilon=1e-6, weight_decay=0.0, ema_decay=0.0,
)  # fmt: skip
"""Learning rates of paper section 4, the rest of training.md F.5."""

ER = StageConfig(
    name="er", num_steps=20_000, examples_per_step={"questions": 256}, optimizer=replace(RELEASED, weight_decay=0.01),
    flow_samples=0, residual_dropout=0.1, augmentation=Augmentation(mode="none"), tokens_per_row=4_200, rows_per_pass=1,
)  # fmt: skip
PRETRAIN = StageConfig(
    name="pretrain", num_steps=200_000, examples_per_step={"robot": 690, "questions": 77}, optimizer=RELEASED,
    says_actions=True, flow_samples=0, residual_dropout=0.1, tokens_per_row=4_200, rows_per_pass=2,
)  # fmt: skip
POST_TRAIN = replace(
    PRETRAIN, name="post-train", num_steps=100_000, examples_per_step={"robot": 345, "questions": 39}, flow_samples=4,
    insulate=True, tokens_per_row=2_100,
)  # fmt: skip
FINE_TUNE = replace(
    POST_TRAIN, name="fine-tune", num_steps=50_000, examples_per_step={"robot": 192}, flow_samples=8, insulate=False
)

THINK_OR_NOT: dict[Style, float] = {"robot_action": 0.5, "robot_depth_action": 0.5}
"""Half of the examples ask for a depth map first (paper section 5, fine-tuning)."""
ACT_OR_SEE: dict[Style, float] = {"robot_action": 1 / 3, "robot_depth": 1 / 3, "robot_depth_action": 1 / 3}
"""All three styles alike (paper section 5, post-training)."""
POST_TRAIN_THINK = replace(POST_TRAIN, name="post-train-think", styles=ACT_OR_SEE)
FINE_TUNE_THINK = replace(FINE_TUNE, name="fine-tune-think", styles=THINK_OR_NOT, depth_noise=0.1)

NANO_LOSSES = LossWeights(place=0.5, named=0.25, things=0.25, thing_place=0.25)
"""While acting is learned, pointing counts half."""
NANO_COLOURS = Augmentation(mode="photometric", hue=0.0, blur_probability=0.0)
"""Hues are what tasks are about, and pictures of 128 pixels are soft already."""
NANO_REASON = StageConfig(
    name="reason", num_steps=3_000, examples_per_step={"scenes": 32}, flow_samples=0, state_jitter_bins=1.0,
    augmentation=NANO_COLOURS,
    optimizer=OptimizerConfig(learning_rate=8e-4, final_fraction=0.3),
)  # fmt: skip
NANO_ACT = StageConfig(
    name="act", num_steps=8_000, examples_per_step={"robot": 32, "scenes": 8}, flow_samples=4, state_jitter_bins=1.0,
    augmentation=NANO_COLOURS,
    losses=NANO_LOSSES, optimizer=OptimizerConfig(learning_rate=1e-3, final_fraction=0.02),
)  # fmt: skip
NANO_PRETRAIN = replace(
    NANO_ACT, name="pretrain", num_steps=3_000, flow_samples=0, says_actions=True,
    examples_per_step={"robot": 32, "scenes": 4, "questions": 4},
)  # fmt: skip
NANO_POST_TRAIN = replace(NANO_PRETRAIN, name="post-train", num_steps=2_000, flow_samples=4, insulate=True)
NANO_FINE_TUNE = replace(
    NANO_POST_TRAIN, name="fine-tune", num_steps=2_000, flow_samples=8, insulate=False,
    examples_per_step={"robot": 32, "scenes": 8},
)  # fmt: skip
NANO_THINK = replace(
    NANO_ACT, name="think", num_steps=2_000, examples_per_step={"robot": 24, "scenes": 4}, styles=THINK_OR_NOT,
    depth_noise=0.1,
    losses=replace(NANO_LOSSES, language=0.25),
    optimizer=OptimizerConfig(learning_rate=5e-4, final_fraction=0.02),
)  # fmt: skip


def nano(*stages: StageConfig) -> TrainConfig:
    """A run of the nano network."""
    return TrainConfig(stages=stages)


RECIPES = {
    "er": Recipe(train=TrainConfig(stages=(ER,), checkpoint_activations=True), action_mode="discrete"),
    "pretrain": Recipe(
        train=TrainConfig(stages=(PRETRAIN,), trainable=PRESETS["post-training"], checkpoint_activations=True),
        action_mode="discrete",
        mixture="pre_post_train",
    ),
    "post-train": Recipe(
        train=TrainConfig(stages=(POST_TRAIN,), trainable=PRESETS["post-training"], checkpoint_activations=True),
        action_mode="both",
        mixture="pre_post_train",
    ),
    "fine-tune": Recipe(
        train=TrainConfig(stages=(FINE_TUNE,), trainable=PRESETS["fine-tuning"], checkpoint_activations=True),
        action_mode="both",
    ),
    "post-train-think": Recipe(
        train=TrainConfig(stages=(POST_TRAIN_THINK,), trainable=PRESETS["post-training"], checkpoint_activations=True),
        action_mode="both",
        mixture="pre_post_train",
        think=Think(gate="none"),
    ),
    "fine-tune-think": Recipe(
        train=TrainConfig(stages=(FINE_TUNE_THINK,), trainable=PRESETS["fine-tuning"], checkpoint_activations=True),
        action_mode="both",
        think=Think(),
    ),
    "nano-so101": Recipe(train=nano(NANO_REASON, NANO_ACT), action_mode="continuous", simulation=Simulation()),
    "nano-so101-quick": Recipe(
        train=nano(replace(NANO_REASON, num_steps=1_500), replace(NANO_ACT, num_steps=2_000)),
        action_mode="continuous",
        simulation=Simulation(tasks=("pick",), num_episodes=700, num_scenes=12_000),
    ),
    "nano-think": Recipe(
        train=nano(NANO_THINK), action_mode="continuous", simulation=Simulation(), think=Think(gates_after_norm=True)
    ),
    "nano-er": Recipe(
        train=nano(replace(NANO_REASON, name="er", num_steps=2_000, examples_per_step={"scenes": 32, "questions": 8})),
        action_mode="discrete",
        simulation=Simulation(),
    ),
    "nano-pretrain": Recipe(train=nano(NANO_PRETRAIN), action_mode="discrete", simulation=Simulation()),
    "nano-post-train": Recipe(train=nano(NANO_POST_TRAIN), action_mode="both", simulation=Simulation()),
    "nano-fine-tune": Recipe(train=nano(NANO_FINE_TUNE), action_mode="both", simulation=Simulation()),
}
