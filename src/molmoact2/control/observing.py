"""What a control loop tells those who watch it: recorders, screens, servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard import Verdict
from molmoact2.control.plan import Plan, PlanRequest, Trouble
from molmoact2.control.robot import Frame, Reading


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One turn of the loop."""

    time_s: float
    """On the robot's clock."""
    instruction: str
    verdict: Verdict
    """What the guard made of what was wanted; its `command` went to the motors."""
    reading: Reading | None = None
    """None where the robot did not answer."""
    frames: Mapping[str, Frame] = field(default_factory=dict)
    """Of every camera, as it was seen before the command; none where the robot did not answer."""
    wanted: NDArray[np.floating] | None = None
    """[action_dim] what the plan says; None without one, and while somebody wants the arm to hold."""
    plan_age_s: float | None = None
    """Since the observation that the present plan was made from; None where nothing is wanted."""
    waits_for_resume: bool = False
    """Whether the arm holds until a person resumes it."""
    is_late: bool = False
    """Whether the turn before took longer than its period, so that at least one command was left out."""


class LoopObserver(Protocol):
    """Is told what the loop does; has to return at once."""

    def ticked(self, tick: Tick, /) -> None:
        """A turn of the loop is over."""
        ...

    def asked(self, request: PlanRequest, /) -> None:
        """The planner was asked."""
        ...

    def planned(self, plan: Plan, refusal: Trouble | None, /) -> None:
        """A plan arrived, and was taken unless there is a reason against it."""
        ...

    def noted(self, time_s: float, note: str, /) -> None:
        """Something that an operator should know; said when it begins, not at every tick."""
        ...


class Silent:
    """An observer that makes nothing of anything; others override what they are there for."""

    def ticked(self, tick: Tick, /) -> None:
        """A turn of the loop is over."""

    def asked(self, request: PlanRequest, /) -> None:
        """The planner was asked."""

    def planned(self, plan: Plan, refusal: Trouble | None, /) -> None:
        """A plan arrived."""

    def noted(self, time_s: float, note: str, /) -> None:
        """Something was said."""
