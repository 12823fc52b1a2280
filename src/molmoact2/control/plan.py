"""Plans, and who makes them while the robot moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.types import DepthReasoning, Observation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A chunk of actions, tied to the moment it was made for."""

    actions: NDArray[np.float32]
    """[rows, action_dim] robot units; row i is due at `observed_at_s + i * period_s`."""
    observed_at_s: float
    """When the observation was made, on the robot's clock."""
    period_s: float
    """1 / control_hz of the embodiment."""
    sequence: int
    """Of the request; a plan of an older request than one that was taken already is out of order."""
    arrived_at_s: float
    """When the control loop had it."""
    depth: DepthReasoning | None = None
    timing_s: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What a planner is asked."""

    observation: Observation
    observed_at_s: float
    sequence: int
    remaining: NDArray[np.float32]
    """[rows, action_dim] of the present plan that are due from `observed_at_s` on; no rows without a plan."""
    delay: int
    """Rows of them that will surely be executed before the new plan arrives."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A request that did not end in a plan."""

    sequence: int | None
    message: str
    is_final: bool = False
    """Whether asking again is of no use."""


class Planner(Protocol):
    """Makes plans beside the control loop, which never waits for it."""

    @property
    def is_free(self) -> bool:
        """Whether it can take a request now."""
        ...

    def ask(self, request: PlanRequest, /) -> None:
        """Begin to plan; returns at once."""
        ...

    def poll(self) -> Sequence[Plan | Trouble]:
        """What has been finished since the last call, oldest first; returns at once."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...
