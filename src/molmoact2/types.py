"""The contract between robots, policies, servers and benchmarks. Needs numpy only.

A policy turns an `Observation` into an `ActionChunk`; an `Environment` turns actions into the next observation.
Robots and policies meet nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[Any]
"""One camera image [height, width, 3], RGB: uint8, or floating point in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a robot senses at one moment, and what it was asked to do."""

    images: Mapping[str, Image] | Sequence[Image]
    """Camera name -> image, in any order; or the images alone, already in the order the policy expects."""
    state: NDArray[np.floating]
    """[state_dim] proprioception in robot units, in the order of the embodiment's state names."""
    instruction: str
    """What to do, in words."""


@dataclass(frozen=True, kw_only=True)
class DepthReasoning:
    """The depth map a policy reasoned over before it acted."""

    codes: NDArray[np.int64]
    """[num_depth_codes] codebook index of each cell, row by row."""
    changed: NDArray[np.bool_]
    """[num_depth_codes] True where the cell was decoded anew, False where the previous code was kept."""
    age: int = 0
    """Calls since the observation that the codes were read from: 0 this one, 1 the one before (thinking ahead)."""
    passes: int = 0
    """Runs of the decoder over tokens that it took to say the map, the one that reads the prompt included."""
    gates: NDArray[np.float32] | None = None
    """[layers] how far each layer of the action expert lets the map through, in [0, 1]; None without gates."""
    decoder: Callable[[NDArray[np.int64]], Image] | None = field(default=None, repr=False, compare=False)
    """Turns codes into a picture, where the checkpoint comes with a depth codec."""

    @cached_property
    def preview(self) -> Image | None:
        """[height, width, 3] uint8: the decoded depth map, near bright and far dark; None without a decoder.

        Computed when it is first asked for, so that acting does not pay for it.
        """
        return None if self.decoder is None else self.decoder(self.codes)


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """The next actions of a robot, in robot units."""

    actions: NDArray[np.float32]
    """[n_action_steps, action_dim], one row per control period, the first row to be executed first."""
    depth: DepthReasoning | None = None
    """What the policy thought the scene looks like; None when it was not asked to think."""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent in each stage."""


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What the robot will do anyway while it waits: the rows of its plan that are not executed yet."""

    actions: NDArray[np.float32]
    """[rows, action_dim] robot units; row 0 is due at the observation. No rows is no plan."""
    delay: int
    """Rows that will surely be executed before the answer arrives: the new plan has to begin with them."""


class NoActionError(ValueError):
    """A policy that has no action to give; whoever executes its actions holds still."""


class Policy(Protocol):
    """Anything that can be asked for the next actions: a checkpoint, a scripted expert, a remote server."""

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the next chunk of actions; NoActionError where there is none, never a made-up one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an episode stands after a step, decided from the true state of the world."""

    success: bool = False
    """The task is done."""
    failure: str | None = None
    """Why the task can no longer be done, for instance "wrong object"; None while it can."""

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return self.success or self.failure is not None


class Environment(Protocol):
    """A simulated or real scene in which a robot is given tasks.

    Rendering is slow, so images are made only when `observe` is called, not at every step.
    """

    embodiment: str
    """Tag of the robot in it; `molmoact2.embodiments` describes it."""
    control_hz: float
    """Actions per second."""
    tasks: tuple[str, ...]
    """Names of the tasks it offers."""
    max_steps: int
    """Control steps after which an episode counts as failed."""

    @property
    def instruction(self) -> str:
        """The current task in words."""
        ...

    def reset(self, *, seed: int, task: str) -> None:
        """Lay out the scene of this seed and task. The same seed and task always give the same scene."""
        ...

    def observe(self) -> Observation:
        """Render the cameras and read the joints."""
        ...

    def step(self, action: NDArray[np.floating], /) -> Outcome:
        """Hold `action` [action_dim], in robot units, for one control period."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...
