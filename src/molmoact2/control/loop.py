"""The loop that moves an arm: read, plan beside it, ask the guard, command. It never waits for a plan.

    clock      |----|----|----|----|----|----|----|----|       one tick per command, at the robot's command_hz
    read       o    o    o    o    o    o    o    o    o
    look, ask  o                   o                           when the executor wants a plan and the planner is free
    plan       '---------> take    '---------> take            rows are due from the moment that was observed
    command       hold     c    c    c    c    c    c          what the executor says and the guard admits

Whatever goes wrong, the arm holds still and the reason is said: no plan, a device that does not answer, senses that
cannot be true, an operator, Ctrl-C.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.back_off import BackOff
from molmoact2.control.executor import Executor
from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.control.robot import Frame, Reading, Robot, RobotError
from molmoact2.control.senses import Senses
from molmoact2.types import Observation
from molmoact2.wire.messages import Control

OPERATOR, SENSES = "operator", "senses"
"""Who may want the arm to hold until it is resumed."""
HELD_MEANWHILE = Trouble(sequence=None, message="The plan is dropped: the arm was told to hold meanwhile.")


class Verdict(Protocol):
    """What the guard made of a target."""

    @property
    def command(self) -> NDArray[np.float32] | None:
        """[action_dim] for the motors; None where the arm has to hold."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Why it is not what was wanted; nothing where it is."""
        ...


class Guard(Protocol):
    """Stands between every plan and the motors."""

    @property
    def mode(self) -> str:
        """ "shadow", "hold", "slow" or "full"."""
        ...

    def admit(self, target: NDArray[np.floating] | None, reading: Reading, /) -> Verdict:
        """What may be done of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One turn of the loop."""

    time_s: float
    """On the robot's clock."""
    reading: Reading | None
    """None where the robot did not answer."""
    wanted: NDArray[np.floating] | None = None
    """[action_dim] what the plan says; None without one, and while the arm holds."""
    commanded: NDArray[np.float32] | None = None
    """[action_dim] what went to the motors; None where the arm was told to hold, or nothing."""
    mode: str
    """Of the guard."""
    plan_age_s: float | None = None
    """Since the observation that the present plan was made from; None without a plan."""
    is_late: bool = False
    """Whether the turn took longer than its period, so that at least one command was left out."""


class LoopObserver(Protocol):
    """Is told what the loop does; has to return at once."""

    def ticked(self, tick: Tick, /) -> None:
        """A turn of the loop is over."""
        ...

    def asked(self, request: PlanRequest, frames: Mapping[str, Frame], /) -> None:
        """The planner was asked."""
        ...

    def planned(self, plan: Plan, refusal: Trouble | None, /) -> None:
        """A plan arrived, and was taken unless there is a reason against it."""
        ...

    def noted(self, time_s: float, note: str, /) -> None:
        """Something that an operator should know; said when it begins, not at every tick."""
        ...


Wishes: TypeAlias = Callable[[], Sequence[Control]]
"""What operators wanted since the last call; returns at once."""


class ControlLoop:
    """One robot, one planner, and what stands between them. `run` moves the arm until something ends it."""

    def __init__(
        self,
        robot: Robot,
        planner: Planner,
        executor: Executor,
        guard: Guard,
        *,
        observers: Sequence[LoopObserver] = (),
        wishes: Wishes = tuple,
        senses: Senses | None = None,
    ) -> None:
        self.robot = robot
        self.planner = planner
        self.executor = executor
        self.guard = guard
        self.observers = observers
        self.wishes = wishes
        self.senses = senses or Senses(robot.embodiment)
        self.back_off = BackOff()
        self.instruction = ""
        self.sequence = 0
        self.holding: dict[str, str] = {}
        """Who wants the arm to hold -> why."""
        self.said: dict[str, str] = {}
        """Subject -> what was said about it last."""
        self.ending: str | None = None
        self.plan: Plan | None = None
        self.commanded: NDArray[np.float32] | None = None

    def run(self, instruction: str, is_over: Callable[[], str | None] = lambda: None) -> str:
        """Follow `instruction` until `is_over` says why not to, an operator stops it, or the planner gives up for good.

        Returns the reason. However it ends, by an exception too, the arm holds still then.
        """
        self.instruction, self.ending = instruction, None
        clock, due_s, is_late = self.robot.clock, self.robot.clock.now(), False
        try:
            while (reason := self.ending or is_over()) is None:
                self._tick(is_late)
                periods = ceil((clock.now() - due_s) * self.robot.command_hz - 1e-6)
                is_late = periods > 1
                due_s += max(1, periods) / self.robot.command_hz
                clock.sleep_until(due_s)
            return reason
        finally:
            self.robot.hold()

    def _tick(self, is_late: bool) -> None:
        """One turn. A device that does not answer makes the arm hold until it does."""
        self._obey()
        now = self.robot.clock.now()
        try:
            tick = self._turn(now, is_late)
            self._say("robot", None)
        except RobotError as error:
            self.robot.hold()
            self._say("robot", f"the robot does not answer: {error}")
            tick = Tick(time_s=now, reading=None, mode=self.guard.mode, is_late=is_late)
        for observer in self.observers:
            observer.ticked(tick)

    def _turn(self, now: float, is_late: bool) -> Tick:
        reading = self.robot.read()
        self._distrust(self.senses.felt(reading, self.commanded))
        self._hear()
        if self._should_ask(now):
            self._ask(reading)
            self._hear()
        wanted = None if self.holding else self.executor.target(now)
        verdict = self.guard.admit(wanted, reading)
        self._move(verdict.command)
        self._say("guard", "; ".join(verdict.notes) or None)
        has_run_out = wanted is None and self.plan is not None
        self._say("plan", "the plan is over and there is no other: holding still" if has_run_out else None)
        age_s = None if self.plan is None or wanted is None else now - self.plan.observed_at_s
        return Tick(
            time_s=now,
            reading=reading,
            wanted=wanted,
            commanded=self.commanded,
            mode=self.guard.mode,
            plan_age_s=age_s,
            is_late=is_late,
        )

    def _move(self, command: NDArray[np.float32] | None) -> None:
        self.commanded = command
        if command is None:
            self.robot.hold()
        else:
            self.robot.command(command)

    def _should_ask(self, now: float) -> bool:
        is_possible = not self.holding and self.planner.is_free and now >= self.back_off.not_before_s
        return is_possible and self.executor.needs_plan(now)

    def _ask(self, reading: Reading) -> None:
        """Look, and begin to plan; not where the pictures cannot be true."""
        frames = self.robot.look()
        self._distrust(self.senses.looked(reading, frames))
        if self.holding:
            return
        images = {name: frame.image for name, frame in frames.items()}
        remaining = self.executor.remaining(reading.time_s)
        request = PlanRequest(
            observation=Observation(images=images, state=reading.state, instruction=self.instruction),
            observed_at_s=reading.time_s,
            sequence=self.sequence,
            remaining=remaining,
            delay=min(self.executor.latency_steps, len(remaining)),
        )
        self.sequence += 1
        self.planner.ask(request)
        for observer in self.observers:
            observer.asked(request, frames)

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
        refusal = HELD_MEANWHILE if self.holding else self.executor.take(plan, self.robot.clock.now())
        self.plan = self.plan if refusal else plan
        for observer in self.observers:
            observer.planned(plan, refusal)

    def _worry(self, trouble: Trouble) -> None:
        self.back_off.failed(self.robot.clock.now())
        self._say("planner", trouble.message)
        if trouble.is_final:
            self.ending = f"the planner cannot go on: {trouble.message}"

    def _obey(self) -> None:
        """Do what operators want."""
        for wish in self.wishes():
            if wish.instruction is not None:
                self.instruction = wish.instruction
                self._say("instruction", f"now: {wish.instruction}")
            match wish.command:
                case "hold":
                    self._hold(OPERATOR, "held by the operator")
                case "resume":
                    self._resume()
                case "stop":
                    self.ending = "stopped by the operator"
                case None:
                    pass

    def _distrust(self, wrong: str | None) -> None:
        if wrong is not None:
            self._hold(SENSES, wrong)

    def _hold(self, who: str, why: str) -> None:
        """Hold still until resumed; what was planned is not gone on with then."""
        self.holding[who] = why
        self.executor.reset(self.robot.clock.now())
        self.plan = None
        self._say(who, why)

    def _resume(self) -> None:
        self.senses = Senses(self.robot.embodiment, self.senses.limits)
        self.holding.clear()
        for who in (OPERATOR, SENSES):
            self._say(who, None)

    def _say(self, subject: str, note: str | None) -> None:
        """Tell observers what is new about a subject; None says that there is nothing the matter with it any more."""
        if note is None:
            self.said.pop(subject, None)
        elif self.said.get(subject) != note:
            self.said[subject] = note
            for observer in self.observers:
                observer.noted(self.robot.clock.now(), note)
