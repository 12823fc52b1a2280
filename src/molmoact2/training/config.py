"""What a training run is: frozen values, checked before any weight exists."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from molmoact2.data.augmentation import Augmentation
from molmoact2.data.errors import require
from molmoact2.tokens.prompt import QUESTIONS, Style
from molmoact2.training.trainable import TrainableConfig

ALL_PARTS, AUGMENTATION = TrainableConfig(), Augmentation()


def only_acting() -> dict[Style, float]:
    """The styles of a policy that does not think."""
    return {"robot_action": 1.0}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine down to a fraction of the peak, for each tower on its own."""

    learning_rate: float
    """Peak of the decoder."""
    vision_factor: float = 1.0
    """Learning rate of the vision tower, relative to `learning_rate`."""
    connector_factor: float = 1.0
    """The same for the connector and the embeddings of image tokens."""
    expert_factor: float = 1.0
    """The same for the action expert and the depth gate."""
    warmup_steps: int = 100
    final_fraction: float = 0.1
    """Where the cosine ends, relative to the peak."""
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    weight_decay: float = 0.02
    """On matrices only."""
    clip_norm: float = 1.0
    """Largest norm of the gradient of each tower."""
    ema_decay: float = 0.998
    """Of the weights that are exported; 0 exports the last ones."""

    def __post_init__(self) -> None:
        positive = min(self.learning_rate, self.vision_factor, self.connector_factor, self.expert_factor, self.epsilon)
        require(
            positive > 0 and self.clip_norm > 0 and self.warmup_steps >= 0 and self.weight_decay >= 0,
            "learning_rate, its factors, epsilon and clip_norm must be above 0, warmup_steps and weight_decay at least "
            f"0, got {self}. What is not to learn is said in TrainableConfig.",
        )
        fractions = (self.final_fraction, self.ema_decay, *self.betas)
        require(
            min(fractions) >= 0 and self.final_fraction <= 1 and max(fractions[1:]) < 1,
            f"final_fraction must be in [0, 1], ema_decay and betas in [0, 1), got {fractions}.",
        )


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Factor of each loss; every loss is a mean over its valid elements in the whole batch of a step."""

    language: float = 1.0
    """Cross-entropy of spoken answers: actions, depth, words."""
    z: float = 1e-4
    """Square of the log of the softmax's denominator, which keeps logits small (training.md F.1)."""
    flow: float = 1.0
    """Velocity of the action expert."""
    place: float = 1.0
    """Position in metres of what the instruction names; this one and those below are for examples with places."""
    named: float = 0.5
    """Which image token shows what the instruction names."""
    things: float = 0.5
    """Which image token shows each thing in the scene, whatever the instruction says."""
    thing_place: float = 0.5
    """Position of each thing, read from the image token that shows it."""


PLAIN_LOSSES = LossWeights()


@dataclass(frozen=True, kw_only=True)
class Think:
    """How a network that says depth maps differs from one that does not; paper section 5."""

    num_codes: int = 100
    """Cells of a depth map, a square number."""
    num_tokens: int = 128
    """Codes that a cell can have."""
    gate: Literal["none", "shared", "layer"] = "layer"
    """What the action expert sees depth maps through: nothing, one gate, or one for each layer; closed at first."""
    gates_after_norm: bool = False
    """Gate behind the norms of the expert's context; see `ModelConfig.action_expert_depth_gate_after_norm`."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: what it sees, what it learns, for how long."""

    name: str
    num_steps: int
    examples_per_step: Mapping[str, int]
    """Stream -> its examples in the batch of a step, over all ranks and passes together."""
    optimizer: OptimizerConfig
    losses: LossWeights = PLAIN_LOSSES
    styles: Mapping[Style, float] = field(default_factory=only_acting)
    """What robot examples ask for -> share: the action, a depth map, or that and then the action (training.md F.4).
    Styles with depth need examples that have depth codes."""
    depth_noise: float = 0.0
    """Share of a depth map's codes that are read as random ones; what is to be said stays."""
    says_actions: bool = False
    """Whether robot examples are answered in action tokens (discrete pre-training, co-training)."""
    flow_samples: int = 4
    """Noise and time samples per action chunk, which share one pass of the decoder (K in the paper); 0 leaves the
    action expert out."""
    insulate: bool = False
    """Keep the expert's gradient out of the decoder."""
    residual_dropout: float = 0.0
    """Share of the decoder's residual updates that is dropped at the tokens of prompts; answers keep all of theirs.
    What is drawn follows from the step, but also from how it is cut into ranks and passes."""
    augmentation: Augmentation = AUGMENTATION
    state_jitter_bins: float = 0.0
    """The state is moved by up to this many bins, so that no single bin is learned by heart."""
    tokens_per_row: int | None = None
    """Pack examples into rows of at most so many tokens; None gives every example a row of its own."""
    rows_per_pass: int | None = None
    """Rows that go through the network at once; None takes all of a step. It does not change what is learned."""

    def __post_init__(self) -> None:
        where = f"Stage {self.name!r}"
        require(
            set(self.styles) <= set(QUESTIONS) and min(self.styles.values(), default=0) > 0,
            f"{where}: styles must be shares above 0 of {', '.join(QUESTIONS)}, got {dict(self.styles)}.",
        )
        require(0 <= self.depth_noise <= 1, f"{where}: depth_noise must be 0 to 1, got {self.depth_noise}.")
        require(
            self.num_steps >= 1 and self.flow_samples >= 0 and self.state_jitter_bins >= 0,
            f"{where}: num_steps must be at least 1, flow_samples and state_jitter_bins at least 0.",
        )
        require(
            min(self.examples_per_step.values(), default=0) >= 1,
            f"{where} needs at least one example per step of every stream it names.",
        )
        sizes = [size for size in (self.tokens_per_row, self.rows_per_pass) if size is not None]
        require(min(sizes, default=1) >= 1, f"{where}: tokens_per_row and rows_per_pass must be at least 1, or None.")
        require(0 <= self.residual_dropout < 1, f"{where}: residual_dropout must be in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: stages one after the other on one network."""

    stages: tuple[StageConfig, ...]
    trainable: TrainableConfig = ALL_PARTS
    """Which parts of the network learn, in all stages."""
    seed: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute dtype; the weights that the optimiser moves stay float32."""
    compile: bool = False
    """Compile the towers with torch.compile: a minute or more at the start, then 1.6 times as many steps per CPU second
    (nano, two cores). Needs a C++ compiler."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: a third more work, far less memory."""
    num_workers: int = 1
    """Processes per rank that prepare batches; 0 prepares them in the training process."""
    log_every: int = 20
    checkpoint_every: int = 500
    """Steps between checkpoints that a stopped run resumes from."""
    measure_every: int = 500
    """Steps between measurements on what is held out."""
    snapshot_every: int = 1_000
    """Steps between exports of the policy as it is then, once it learns to act."""
    num_held_out: int = 256
    """Examples of each held-out stream that are measured."""

    def __post_init__(self) -> None:
        require(bool(self.stages), "A training run needs at least one stage.")
        require(self.dtype in ("bfloat16", "float32"), f"dtype must be bfloat16 or float32, got {self.dtype!r}.")
        every = {name: value for name, value in vars(self).items() if name.endswith("_every")}
        require(min(every.values()) >= 1, f"What is done every so many steps needs at least 1 of them, got {every}.")
        counts = (self.seed, self.num_workers, self.num_held_out)
        require(min(counts) >= 0, f"seed, num_workers and num_held_out must be at least 0, got {counts}.")

    @property
    def num_steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.num_steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[StageConfig, int]:
        """The stage that global step `step` belongs to, and the step within it."""
        for stage in self.stages:
            if step < stage.num_steps:
                return stage, step
            step -= stage.num_steps
        raise ValueError(f"The run has {self.num_steps} steps.")

    def numbers_at(self, step: int) -> list[tuple[str, int]]:
        """(stream, number) of every example of global step `step`: each stream goes on where the step before ended."""
        current, in_stage = self.stage_at(step)
        used, first = Counter[str](), step - in_stage
        for stage in self.stages:
            done = min(first, stage.num_steps)
            used.update({stream: done * count for stream, count in stage.examples_per_step.items()})
            first -= done
        return [
            (stream, used[stream] + in_stage * count + i)
            for stream, count in current.examples_per_step.items()
            for i in range(count)
        ]
