"""A loop that swings a simulated or pretended arm: plans are where a slow sine will be, or lead to it."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import VirtualClock
from molmoact2.control.executor import Executor
from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.loop import ControlLoop, Wishes
from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.control.planners import Answer, PunctualPlanner
from molmoact2.control.robot import Robot
from molmoact2.control.strategies import make_strategy
from molmoact2.types import ActionChunk

HZ, ROWS = 15.0, 16
CENTRE = np.array([0.0, -20.0, 20.0, 60.0, 0.0, 40.0])
SWING = np.array([35.0, 10.0, 10.0, 10.0, 20.0, 20.0])
PERIOD_S = 4.0
RETURN = 0.8
"""Share of the distance to the sine that is left after every row."""


def pose(time_s: float) -> NDArray[np.float64]:
    """Where the arm should be."""
    return CENTRE + SWING * math.sin(2 * math.pi * time_s / PERIOD_S)


def swing(request: PlanRequest) -> ActionChunk:
    """The rows from the observation on, wherever the arm is."""
    rows = [pose(request.observed_at_s + row / HZ) for row in range(ROWS)]
    return ActionChunk(actions=np.array(rows, dtype=np.float32))


def back_to_swing(request: PlanRequest) -> ActionChunk:
    """The same, but beginning where the arm is."""
    off = request.observation.state - pose(request.observed_at_s)
    rows = [pose(request.observed_at_s + row / HZ) + off * RETURN**row for row in range(ROWS)]
    return ActionChunk(actions=np.array(rows, dtype=np.float32))


@dataclass
class Diary(Silent):
    """Observer that keeps everything."""

    ticks: list[Tick] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    refusals: list[Trouble] = field(default_factory=list)
    requests: list[PlanRequest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ticked(self, tick: Tick, /) -> None:
        self.ticks.append(tick)

    def asked(self, request: PlanRequest, /) -> None:
        self.requests.append(request)

    def planned(self, plan: Plan, refusal: Trouble | None, /) -> None:
        self.plans.append(plan)
        self.refusals += [refusal] if refusal else []

    def noted(self, _time_s: float, note: str, /) -> None:
        self.notes.append(note)

    @property
    def text(self) -> str:
        """All notes."""
        return "\n".join(self.notes)


def punctual(clock: VirtualClock, latency_s: float = 0.1, answer: Answer = swing) -> PunctualPlanner:
    """The swinging planner."""
    return PunctualPlanner(answer, clock, period_s=1 / HZ, latency_s=latency_s)


def make_loop(
    robot: Robot,
    planner: Planner,
    diary: Diary,
    *,
    mode: Mode = Mode.FULL,
    execution: str = "replan",
    wishes: Wishes = tuple,
) -> ControlLoop:
    """A loop over `robot`, written down in `diary`."""
    return ControlLoop(
        robot,
        planner,
        Executor(make_strategy(execution), len(robot.embodiment.action_names), robot.embodiment.control_hz),
        Guard(MotionLimits.of(robot.embodiment), mode=mode),
        observers=[diary],
        wishes=wishes,
    )


def until(clock: VirtualClock, time_s: float):
    """Over at a moment of a clock."""
    return lambda: "time is up" if clock.now() >= time_s else None
