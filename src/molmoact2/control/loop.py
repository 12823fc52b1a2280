"""The loop that moves an arm: sense, plan beside it, ask the guard, command. It never waits for a plan.

    clock      |----|----|----|----|----|----|----|----|       one tick per command, at the robot's command_hz
    sense      o    o    o    o    o    o    o    o    o       joints, and the newest picture of every camera
    ask        '---------.         '---------.                 when the executor wants a plan and the planner is free
    take                 '                   '                 rows are due from the moment that was observed
    command    hold      c    c    c    c    c    c    c       what the executor says and the guard admits

Whatever goes wrong, the arm holds still and the reason is said: no plan, a device that does not answer, cameras that
were swapped, an operator, Ctrl-C.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import TypeAlias

import numpy as np

from molmoact2.control.back_off import BackOff
from molmoact2.control.executor import Executor
from molmoact2.control.guard import Guard, Verdict
from molmoact2.control.observing import LoopObserver, Tick
from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.control.robot import Frame, Reading, Robot, RobotError
from molmoact2.control.swaps import Swaps
from molmoact2.types import Observation
from molmoact2.wire.messages import Control

OPERATOR, CAMERAS = "operator", "cameras"
"""Who may want the arm to hold until it is resumed."""
ALMOST = 1e-6
"""Of a period: clocks add up periods that are not binary fractions."""
BRAKING_S = 2.0
"""The longest that an arm may take to come to rest at the end."""

Wishes: TypeAlias = Callable[[], Sequence[Control]]
"""What operators wanted since the last call; returns at once."""


class ControlLoop:
    """One robot, one planner, and what stands between them. `run` moves the arm until something ends it.

    Args:
        executor: turns plans into targets; made for the robot's `control_hz`.
        guard: in its mode. The loop commands what it says and nothing else, so in shadow nothing at all.
        observers: told everything, in this order.
        wishes: of operators, looked at in every tick.
    """

    def __init__(
        self,
        robot: Robot,
        planner: Planner,
        executor: Executor,
        guard: Guard,
        *,
        observers: Sequence[LoopObserver] = (),
        wishes: Wishes = tuple,
    ) -> None:
        self.robot = robot
        self.planner = planner
        self.executor = executor
        self.guard = guard
        self.observers = observers
        self.wishes = wishes
        self.swaps = Swaps(robot.embodiment.cameras)
        self.back_off = BackOff()
        self.instruction = ""
        self.num_asked = 0
        self.holding: dict[str, str] = {}
        """Who wants the arm to hold -> why."""
        self.said: dict[str, str] = {}
        """Subject -> what was said about it last."""
        self.ending: str | None = None
        self.plan: Plan | None = None
        """The one that was taken last; None after the arm was stopped."""

    def run(self, instruction: str, is_over: Callable[[], str | None] = lambda: None) -> str:
        """Follow `instruction` until `is_over` says why not to, an operator stops it, or the planner gives up for good.

        Returns the reason. The arm comes to rest before that; after an exception, Ctrl-C included, it is told to hold.
        """
        self.instruction, self.ending = instruction, None
        self.holding.clear()
        self.guard.restart()
        try:
            self.ending = self._go(lambda: self.ending or is_over())
            self._drop_plan()
            give_up_s = self.robot.clock.now() + BRAKING_S
            return self._go(lambda: self.ending if self._is_at_rest(give_up_s) else None)
        finally:
            self._hold_motors()

    def _go(self, is_over: Callable[[], str | None]) -> str:
        """Tick until it is over; returns why."""
        clock, rate_hz = self.robot.clock, self.robot.command_hz
        began_s, turns, is_late = clock.now(), 0, False
        while (reason := is_over()) is None:
            self._tick(is_late)
            due = max(turns + 1, ceil((clock.now() - began_s) * rate_hz - ALMOST))
            turns, is_late = due, due > turns + 1
            clock.sleep_until(began_s + turns / rate_hz)
        return reason

    def _is_at_rest(self, give_up_s: float) -> bool:
        return self.guard.stopping_time_s == 0.0 or self.robot.clock.now() > give_up_s

    def _tick(self, is_late: bool) -> None:
        """One turn: whatever devices do, it ends with a verdict of the guard."""
        self._obey()
        now = self.robot.clock.now()
        reading, frames = self._sense()
        self._hear()
        if reading is not None and self._should_ask(now):
            self._ask(reading, frames)
            self._hear()
        wanted = None if self.holding else self.executor.target(now)
        verdict = self.guard.admit(wanted, reading, now, frames=frames)
        self._move(verdict)
        for news in verdict.news:
            self._tell(news)
        age_s = None if self.plan is None or wanted is None else now - self.plan.observed_at_s
        tick = Tick(
            time_s=now,
            instruction=self.instruction,
            verdict=verdict,
            reading=reading,
            frames=frames,
            wanted=wanted,
            plan_age_s=age_s,
            waits_for_resume=bool(self.holding) or verdict.needs_human,
            is_late=is_late,
        )
        for observer in self.observers:
            observer.ticked(tick)

    def _sense(self) -> tuple[Reading | None, Mapping[str, Frame]]:
        """Joints and pictures; nothing where a device does not answer."""
        try:
            reading, frames = readable(self.robot.read()), self.robot.look()
        except RobotError as error:
            self._say("robot", f"The robot does not answer: {error}")
            return None, {}
        self._say("robot", None)
        doubt = self.swaps.check(frames)
        if doubt is not None:
            self._hold(CAMERAS, f"The pictures cannot be trusted: {doubt}.")
        return reading, frames

    def _move(self, verdict: Verdict) -> None:
        """Command what the guard admits; a motor that cannot be told that is told to hold."""
        if verdict.wants_plan:
            self._drop_plan()
        if verdict.command is None:
            return
        try:
            self.robot.command(verdict.command)
        except RobotError as error:
            self._say("motors", f"The motors do not answer: {error}")
            self._hold_motors()
            self.guard.restart()
        else:
            self._say("motors", None)

    def _hold_motors(self) -> None:
        """Keep the pose, where motors are ours: in shadow somebody else has them."""
        if self.guard.mode != "shadow":
            self.robot.hold()

    def _should_ask(self, now: float) -> bool:
        is_held = self.holding or self.ending is not None or self.guard.state().needs_human
        is_possible = not is_held and self.planner.is_free and now >= self.back_off.not_before_s
        return is_possible and self.executor.needs_plan(now)

    def _ask(self, reading: Reading, frames: Mapping[str, Frame]) -> None:
        """Begin to plan from what is sensed now."""
        images = {name: frame.image for name, frame in frames.items()}
        remaining = self.executor.remaining(reading.time_s)
        request = PlanRequest(
            observation=Observation(images=images, state=reading.state, instruction=self.instruction),
            observed_at_s=reading.time_s,
            sequence=self.num_asked,
            remaining=remaining,
            delay=min(self.executor.latency_steps, len(remaining)),
        )
        self.num_asked += 1
        self.planner.ask(request)
        for observer in self.observers:
            observer.asked(request)

    def _hear(self) -> None:
        """Take what the planner has finished."""
        for finished in self.planner.poll():
            match finished:
                case Plan():
                    self._take(finished)
                case Trouble():
                    self._worry(finished)

    def _take(self, plan: Plan) -> None:
        self.back_off.succeeded()
        self._say("planner", None)
        refusal = self.executor.take(plan, self.robot.clock.now())
        self.plan = self.plan if refusal else plan
        self._say("plan", refusal and refusal.message)
        for observer in self.observers:
            observer.planned(plan, refusal)

    def _worry(self, trouble: Trouble) -> None:
        self.back_off.failed(self.robot.clock.now())
        self._say("planner", f"There is no plan: {trouble.message}")
        if trouble.is_final:
            self.ending = f"the planner cannot go on: {trouble.message}"

    def _obey(self) -> None:
        """Do what operators want."""
        for wish in self.wishes():
            if wish.instruction is not None and wish.instruction != self.instruction:
                self.instruction = wish.instruction
                self._drop_plan()
                self._tell(f"The instruction is now: {wish.instruction}")
            match wish.command:
                case "hold":
                    self._hold(OPERATOR, "The operator holds the arm.")
                case "resume":
                    self._resume()
                case "stop":
                    self.ending = "stopped by the operator"
                case None:
                    pass

    def _hold(self, who: str, why: str) -> None:
        """Hold still until resumed; what was planned is not gone on with then."""
        self.holding[who] = why
        self._drop_plan()
        self._say(who, why)

    def _resume(self) -> None:
        """A person wants the arm to go on, and is taken to have looked at it."""
        self.holding.clear()
        self.swaps = Swaps(self.robot.embodiment.cameras)
        for who in (OPERATOR, CAMERAS):
            self._say(who, None)
        try:
            self.guard.clear(by=OPERATOR)
        except ValueError as error:
            self._tell(str(error))

    def _drop_plan(self) -> None:
        self.executor.reset(self.robot.clock.now())
        self.plan = None

    def _say(self, subject: str, note: str | None) -> None:
        """Tell what is new about a subject; None means that there is nothing the matter with it any more."""
        if note is None:
            self.said.pop(subject, None)
        elif self.said.get(subject) != note:
            self.said[subject] = note
            self._tell(note)

    def _tell(self, note: str) -> None:
        for observer in self.observers:
            observer.noted(self.robot.clock.now(), note)


def readable(reading: Reading) -> Reading:
    """The reading, if its joints are numbers; RobotError otherwise: no policy can be asked about it."""
    if not np.isfinite(reading.state).all():
        raise RobotError(f"the joints read {reading.state.tolist()}")
    return reading
