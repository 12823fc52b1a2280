"""Who acts in an episode: a checkpoint, the environment's scripted expert, or a robot that holds still.

The two that learn nothing prove the loop: the expert shows that a task can be done, holding still that it does not do
itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from molmoact2.evaluation.experts import make_expert
from molmoact2.evaluation.film import Judge
from molmoact2.tokens.reading import require
from molmoact2.types import ActionChunk, Environment, Observation, Policy

WITHOUT_CHECKPOINT = ("expert", "hold")


@dataclass(frozen=True, kw_only=True)
class PolicySource:
    """A loaded policy, ready for any number of episodes."""

    start: Callable[[int], Policy]
    """Makes the policy of one episode from the episode's seed, before the environment is reset."""
    num_action_steps: int | None = None
    """Rows of each chunk that are executed before the policy looks again; None executes the whole chunk."""
    judge: Judge | None = None
    """Tells how far its thoughts are from the true depth, where that can be known."""


@dataclass(frozen=True, kw_only=True)
class PolicyChoice:
    """Which policy acts, and how; picklable. `open` loads it in the process that runs it."""

    name: str
    """"expert", "hold", or a checkpoint's directory or hub id."""
    environment: str
    """Name of the environment, whose expert it is."""
    num_action_steps: int | None = None
    """Rows of a chunk that are executed before it looks again; None takes the checkpoint's own number."""
    num_flow_steps: int | None = None
    """Steps of the flow sampler; None takes the checkpoint's own number."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Whether a checkpoint integrates the flow or says its actions."""
    guided: bool = False
    """Whether a spoken action is made whole by saying only tokens that still fit."""
    think: bool = False
    """Whether a checkpoint predicts the depth map before it acts."""
    think_ahead: bool = False
    """Whether it acts on the map of the call before, and renews that for the next one."""
    dtype: str = "float32"
    num_threads: int | None = None
    """Threads that a checkpoint computes with; None leaves the choice to torch."""

    def __post_init__(self) -> None:
        require(self.think or not self.think_ahead, "To think ahead is a way to think: ask for think as well.")
        is_able = self.name not in WITHOUT_CHECKPOINT or not self.think
        require(is_able, f"{self.name!r} cannot think: give a checkpoint that was trained to.")

    def check(self) -> None:
        """Refuse, before anything is loaded, a checkpoint that is asked to think and was not trained to."""
        if self.think:
            from molmoact2.evaluation.checkpoint import check_thinking

            check_thinking(self.name)

    def open(self, environment: Environment) -> PolicySource:
        """Load the policy for episodes of `environment`; ValueError when there is none of that name for its robot."""
        match self.name:
            case "expert":
                expert = make_expert(self.environment, environment)
                return PolicySource(start=lambda _seed: expert)
            case "hold":
                return PolicySource(start=lambda _seed: HoldStill())
        from molmoact2.evaluation.checkpoint import open_checkpoint

        return open_checkpoint(self, environment)

    @property
    def label(self) -> str:
        """What people call it: a folder's own name, or the name as it is."""
        is_folder = self.name not in WITHOUT_CHECKPOINT and Path(self.name).is_dir()
        return Path(self.name).resolve().name if is_folder else self.name

    def fingerprint(self) -> str:
        """What tells this policy from any other: a checkpoint's commit or a digest of its files, or its name."""
        if self.name in WITHOUT_CHECKPOINT:
            return self.name
        from molmoact2.evaluation.checkpoint import fingerprint

        return fingerprint(self.name)


class HoldStill:
    """The baseline: the joints stay where the first observation finds them; implements `Policy`."""

    def __init__(self) -> None:
        self.pose: NDArray[np.float32] | None = None

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the pose of the first observation as one row; for robots whose state says what was commanded."""
        if self.pose is None:
            self.pose = np.array(observation.state, dtype=np.float32)
        return ActionChunk(actions=self.pose[None])
