"""What a training run is: frozen values, checked before any weight exists."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine down to a fraction of the peak."""

    learning_rate: float
    """Peak, for every part that has no factor of its own."""
    vision_factor: float = 1.0
    """Learning rate of vision tower and connector, relative to `learning_rate`."""
    expert_factor: float = 1.0
    """Learning rate of the action expert, relative to `learning_rate`."""
    warmup_steps: int = 100
    final_fraction: float = 0.1
    """Where the cosine ends, relative to the peak."""
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    weight_decay: float = 0.02
    """On matrices only."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.998
    """Of the weights that are exported; 0 exports the last ones."""


@dataclass(frozen=True, kw_only=True)
class PointingWeights:
    """Weights of the embodied-reasoning losses; see `training/pointing.py`."""

    place: float = 1.0
    """Position in metres of what the instruction names."""
    named: float = 0.5
    """Which image token shows what the instruction names."""
    things: float = 0.5
    """Which image token shows each thing in the scene, and its position, whatever the instruction says."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: what it sees, what it learns, for how long."""

    name: str
    num_steps: int
    scenes_per_step: int
    """Pointing examples in a batch."""
    frames_per_step: int
    """Action examples in a batch."""
    optimizer: OptimizerConfig
    flow_weight: float = 1.0
    pointing_weight: float = 1.0
    """Factor on all pointing losses."""
    flow_samples: int = 4
    """Noise and time samples per action chunk, which share one pass of the decoder (K in the paper)."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.flow_samples < 1:
            raise ValueError(f"Stage {self.name!r}: num_steps and flow_samples must be at least 1.")
        if self.scenes_per_step < 0 or self.frames_per_step < 0 or self.scenes_per_step + self.frames_per_step < 1:
            raise ValueError(f"Stage {self.name!r} needs scenes or frames in its batch.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run: stages one after the other on one network."""

    stages: tuple[StageConfig, ...]
    pointing: PointingWeights = PointingWeights()
    seed: int = 0
    dtype: str = "bfloat16"
    """Compute dtype; the weights that the optimiser moves stay float32."""
    compile: bool = False
    """Compile the towers with torch.compile: a minute or more at the start, then 1.6 times as many steps per CPU second
    (nano, two cores). Needs a C++ compiler."""
    log_every: int = 20
    checkpoint_every: int = 500
    """Steps between checkpoints that a stopped run resumes from."""
    measure_every: int = 500
    """Steps between measurements of the pointing error on scenes held out."""
    snapshot_every: int = 1_000
    """Steps between exports of the policy as it is then, once it learns to act."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("A training run needs at least one stage.")
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"dtype must be bfloat16 or float32, got {self.dtype!r}.")

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
