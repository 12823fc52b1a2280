"""Things that go wrong, on purpose: robots and planners that misbehave from some moment on, to see what the arm does.

Each wraps a robot or a planner and can be wrapped again:

    robot = FrozenCamera(SwappedCameras(robot, "front", "wrist", from_s=3.0), "front", from_s=1.0)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.control.robot import Clock, Frame, Reading, Robot, RobotError


class RobotInTrouble:
    """A robot that behaves as the wrapped one; others override what goes wrong. `from_s` is on the robot's clock."""

    def __init__(self, robot: Robot, *, from_s: float) -> None:
        self.robot = robot
        self.from_s = from_s
        self.embodiment = robot.embodiment
        self.command_hz = robot.command_hz

    @property
    def clock(self) -> Clock:
        """That of the robot."""
        return self.robot.clock

    @property
    def is_wrong(self) -> bool:
        """Whether the moment has come."""
        return self.clock.now() >= self.from_s

    def read(self) -> Reading:
        """What the robot feels."""
        return self.robot.read()

    def look(self) -> Mapping[str, Frame]:
        """What the robot sees."""
        return self.robot.look()

    def command(self, target: NDArray[np.float32], /) -> None:
        """Told to the robot."""
        self.robot.command(target)

    def hold(self) -> None:
        """Told to the robot, whatever is wrong."""
        self.robot.hold()

    def close(self) -> None:
        """Told to the robot."""
        self.robot.close()


class FrozenCamera(RobotInTrouble):
    """A camera that gives its last picture again and again, as if it were new."""

    def __init__(self, robot: Robot, camera: str, *, from_s: float) -> None:
        super().__init__(robot, from_s=from_s)
        self.camera = camera
        self.last: Frame | None = None

    def look(self) -> Mapping[str, Frame]:
        """What the robot sees, but for one camera."""
        frames = dict(self.robot.look())
        if self.last is None or not self.is_wrong:
            self.last = frames[self.camera]
        return frames | {self.camera: replace(frames[self.camera], image=self.last.image)}


class StaleCamera(RobotInTrouble):
    """A camera that gives no new picture."""

    def __init__(self, robot: Robot, camera: str, *, from_s: float) -> None:
        super().__init__(robot, from_s=from_s)
        self.camera = camera
        self.last: Frame | None = None

    def look(self) -> Mapping[str, Frame]:
        """What the robot sees, but for one camera."""
        frames = self.robot.look()
        if self.last is None or not self.is_wrong:
            self.last = frames[self.camera]
        return {**frames, self.camera: self.last}


class SwappedCameras(RobotInTrouble):
    """Two cameras that change their names."""

    def __init__(self, robot: Robot, one: str, other: str, *, from_s: float) -> None:
        super().__init__(robot, from_s=from_s)
        self.names = {one: other, other: one}

    def look(self) -> Mapping[str, Frame]:
        """What the robot sees, under other names."""
        names = self.names if self.is_wrong else {}
        return {names.get(name, name): frame for name, frame in self.robot.look().items()}


class FrozenJoints(RobotInTrouble):
    """Joints that read the same for ever, as if it were measured anew."""

    def __init__(self, robot: Robot, *, from_s: float) -> None:
        super().__init__(robot, from_s=from_s)
        self.last: Reading | None = None

    def read(self) -> Reading:
        """What the robot felt last."""
        reading = self.robot.read()
        if self.last is None or not self.is_wrong:
            self.last = reading
        return replace(self.last, time_s=reading.time_s)


class Unplugged(RobotInTrouble):
    """A robot that does not answer until `to_s`."""

    def __init__(self, robot: Robot, *, from_s: float, to_s: float) -> None:
        super().__init__(robot, from_s=from_s)
        self.to_s = to_s

    def read(self) -> Reading:
        """RobotError for as long as it does not answer."""
        self._check()
        return self.robot.read()

    def command(self, target: NDArray[np.float32], /) -> None:
        """RobotError for as long as it does not answer."""
        self._check()
        self.robot.command(target)

    def _check(self) -> None:
        if self.is_wrong and self.clock.now() < self.to_s:
            raise RobotError("the cable is unplugged")


class PlannerInTrouble:
    """A planner that behaves as the wrapped one; others override what goes wrong."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner

    @property
    def is_free(self) -> bool:
        """Whether the planner is."""
        return self.planner.is_free

    def ask(self, request: PlanRequest, /) -> None:
        """Told to the planner."""
        self.planner.ask(request)

    def poll(self) -> Sequence[Plan | Trouble]:
        """What the planner has."""
        return self.planner.poll()

    def close(self) -> None:
        """Told to the planner."""
        self.planner.close()


class SpoiltPlans(PlannerInTrouble):
    """Plans whose actions somebody changes, for instance to NaN."""

    def __init__(self, planner: Planner, spoil: Callable[[Plan], NDArray[np.float32]]) -> None:
        super().__init__(planner)
        self.spoil = spoil

    def poll(self) -> Sequence[Plan | Trouble]:
        """What the planner has, spoilt."""
        return [
            replace(item, actions=self.spoil(item)) if isinstance(item, Plan) else item for item in self.planner.poll()
        ]


class LatePlans(PlannerInTrouble):
    """Plans that arrive later than they would, each by its own time; one may overtake another."""

    def __init__(self, planner: Planner, clock: Clock, delay_s: Callable[[int], float]) -> None:
        """`delay_s` says by how much a plan is late, from the number of its request."""
        super().__init__(planner)
        self.clock = clock
        self.delay_s = delay_s
        self.waiting: list[tuple[float, Plan]] = []

    def poll(self) -> Sequence[Plan | Trouble]:
        """What has arrived by now; the planner takes further requests meanwhile."""
        now, found = self.clock.now(), list[Plan | Trouble]()
        for item in self.planner.poll():
            if isinstance(item, Plan):
                self.waiting.append((item.arrived_at_s + self.delay_s(item.sequence), item))
            else:
                found.append(item)
        due = sorted((due_s, plan.sequence, plan) for due_s, plan in self.waiting if due_s <= now)
        self.waiting = [(due_s, plan) for due_s, plan in self.waiting if due_s > now]
        return [*found, *(replace(plan, arrived_at_s=now) for _, _, plan in due)]


class LostPlans(PlannerInTrouble):
    """Answers that get lost; the client notices after a while."""

    def __init__(self, planner: Planner, clock: Clock, is_lost: Callable[[int], bool], *, timeout_s: float) -> None:
        """`is_lost` says which, from the number of the request."""
        super().__init__(planner)
        self.clock = clock
        self.is_lost = is_lost
        self.timeout_s = timeout_s
        self.missed: Trouble | None = None
        self.missed_at_s = 0.0

    @property
    def is_free(self) -> bool:
        """Not while it waits for an answer that is lost."""
        return self.missed is None and self.planner.is_free

    def ask(self, request: PlanRequest, /) -> None:
        """Ask the planner, or wait in vain."""
        if self.is_lost(request.sequence):
            message = f"there was no answer within {self.timeout_s:g} s"
            self.missed = Trouble(sequence=request.sequence, message=message)
            self.missed_at_s = self.clock.now() + self.timeout_s
        else:
            self.planner.ask(request)

    def poll(self) -> Sequence[Plan | Trouble]:
        """What the planner has, or that there will be nothing."""
        if self.missed is None or self.clock.now() < self.missed_at_s:
            return self.planner.poll()
        missed, self.missed = self.missed, None
        return [missed]
