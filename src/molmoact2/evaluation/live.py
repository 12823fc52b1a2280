"""Episodes of a robot that moves, one after the other, whoever plans and whoever watches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from molmoact2.control.executor import Executor
from molmoact2.control.guard import Guard
from molmoact2.control.loop import ControlLoop
from molmoact2.control.observing import LoopObserver
from molmoact2.control.robot import Robot
from molmoact2.control.strategies import Strategy
from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.live_counts import Counts, Tally
from molmoact2.evaluation.live_keys import Operator
from molmoact2.evaluation.live_planners import PlannerSource
from molmoact2.evaluation.rollout import OUT_OF_TIME
from molmoact2.robots.simulated import SimulatedSo101
from molmoact2.wire.messages import Control

SUCCESS = "success"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an episode begins with."""

    task: str | None = None
    """In simulation; None where a person lays out the scene."""
    seed: int | None = None
    """Of the scene in simulation, and of the policy's noise; None for any."""


class Stage(Protocol):
    """Where episodes happen: lays out scenes, and knows when they are over."""

    begins_held: bool
    """Whether an episode begins when a person resumes the arm, who lays out the scene until then."""

    def begin(self, scene: Scene, /) -> str:
        """Lay out a scene; returns the instruction."""
        ...

    def is_over(self) -> str | None:
        """ "success", or why it failed or ended; None while it goes on."""
        ...


class SimulatedStage:
    """The simulator lays out and judges. Time runs out after as many control steps as in `molmoact2 evaluate`."""

    begins_held = False

    def __init__(self, robot: SimulatedSo101, instruction: str | None = None) -> None:
        """`instruction` takes the place of that of every scene."""
        self.robot = robot
        self.instruction = instruction

    def begin(self, scene: Scene, /) -> str:
        """Lay out the scene of a task and a seed."""
        assert scene.task is not None, "a simulated scene has a task"
        assert scene.seed is not None, "a simulated scene has a seed"
        self.robot.begin(task=scene.task, seed=scene.seed)
        return self.instruction or self.robot.instruction

    def is_over(self) -> str | None:
        """What the simulator says."""
        outcome = self.robot.outcome
        is_late = self.robot.control_steps >= self.robot.max_steps
        return SUCCESS if outcome.success else outcome.failure or (OUT_OF_TIME if is_late else None)


class OpenStage:
    """People lay out and judge; time runs out after `seconds`, if that is wanted."""

    def __init__(self, robot: Robot, instruction: str, seconds: float | None, *, begins_held: bool = False) -> None:
        self.robot = robot
        self.begins_held = begins_held
        self.instruction = instruction
        self.seconds = float("inf") if seconds is None else seconds
        self.end_s = float("inf")

    def begin(self, _scene: Scene, /) -> str:
        """Look at the clock."""
        self.end_s = self.robot.clock.now() + self.seconds
        return self.instruction

    def is_over(self) -> str | None:
        """Out of time, or not."""
        return OUT_OF_TIME if self.robot.clock.now() >= self.end_s else None


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """A robot, what plans for it, and who watches."""

    robot: Robot
    stage: Stage
    source: PlannerSource
    strategy: Strategy
    guard_of_episode: Callable[[], Guard]
    """A robot keeps its guard, who may want a person to look; a new simulated scene is as good as one who did."""
    operator: Operator
    keys: Callable[[], str]
    """What was typed since the last call."""
    observers: Sequence[LoopObserver] = ()
    begun: Callable[[str, Counts], None] = lambda _title, _counts: None
    """Told what an episode is called, and where it is counted."""
    ended: Callable[[Record], None] = lambda _record: None
    """Told how it was; not where it was interrupted by an exception."""

    def episodes(self, scenes: Iterable[Scene]) -> Iterator[Record]:
        """Run them until they are done or a person has had enough; yields the record of each when it is over."""
        for scene in scenes:
            record = self.episode(scene)
            self.ended(record)
            yield record
            if self.operator.has_quit:
                return

    def episode(self, scene: Scene) -> Record:
        """One episode."""
        planner, counts = self.source.start(scene.seed), Counts()
        instruction = self.stage.begin(scene)
        self.operator.begin(held=self.stage.begins_held)
        self.begun(f"{self.source.label}, {scene.task or 'episode'} {scene.seed or ''}".strip(), counts)
        embodiment = self.robot.embodiment
        loop = ControlLoop(
            self.robot,
            planner,
            Executor(self.strategy, len(embodiment.action_names), embodiment.control_hz),
            self.guard_of_episode(),
            observers=(counts, self.operator, *self.observers),
            wishes=self.wishes,
        )
        try:
            reason = self.operator.verdict_on(loop.run(instruction, self.stage.is_over))
        finally:
            planner.close()
        return record_of(scene, loop.instruction, reason, counts.tally())

    def wishes(self) -> Sequence[Control]:
        """Of the person at the keys, and of those at the dashboard."""
        for key in self.keys():
            self.operator.press(key)
        self.operator.heard(self.source.wishes())
        return self.operator.take()


def record_of(scene: Scene, instruction: str, reason: str, tally: Tally) -> Record:
    """What is noted about an episode."""
    return {
        "task": scene.task or instruction,
        "seed": scene.seed,
        "instruction": instruction,
        "success": reason == SUCCESS,
        "failure": None if reason == SUCCESS else reason,
        **tally.record(),
    }
