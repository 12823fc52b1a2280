"""The safety guard: always between a plan and the motors.

    target ──► checked ──► limited in speed, acceleration, range, workspace ──► command
                  │ refused
                  ▼
               the arm brakes and holds its pose; it is never told zeros, and never made to jump

It is driven by the time that it is given, so the same inputs always give the same commands.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault, Ledger, Severity, found, must_hold
from molmoact2.control.guard.grip import Grip
from molmoact2.control.guard.senses import Body, Eyes, Felt, felt
from molmoact2.control.guard.targets import Targets
from molmoact2.control.guard.workspace import Fence
from molmoact2.control.limiter import Limiter, Motion
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Frame, Reading

Vector = NDArray[np.float64]
CAUTIOUS_SHARES = (0.3, 0.1)
"""Of the pace, tried one after the other at the border of the workspace before the arm brakes."""
WORTH_MENTIONING = 0.02
"""How far a command may be behind its target without a word, as a share of the largest motion of one row."""
RELIEVED = frozenset({"tracking", "overload"})
"""Findings after which the arm holds where it is, not where it was told to be, so that it does not go on pushing."""
NO_FRAMES: Mapping[str, Frame] = {}


class Mode(StrEnum):
    """What the guard lets through."""

    SHADOW = "shadow"
    """Nothing is commanded; everything is computed and reported, as if the arm followed."""
    HOLD = "hold"
    SLOW = "slow"
    FULL = "full"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do at one tick."""

    command: NDArray[np.float32] | None
    """[action_dim] for the motors; None where nothing may be commanded: in shadow, or before the joints were read."""
    proposal: NDArray[np.float32] | None
    """[action_dim] the command, or what it would be outside of shadow."""
    mode: Mode
    is_holding: bool
    """Whether the target was not followed."""
    needs_human: bool
    wants_plan: bool
    """Whether there was a target that was not followed: forget the present plans and ask anew."""
    faults: tuple[Fault, ...]
    """Everything that was found at this tick."""
    news: tuple[str, ...]
    """Of it, the sentences that were not said lately."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of all findings."""
        return tuple(fault.message for fault in self.faults)


@dataclass(frozen=True, kw_only=True)
class GuardState:
    """How the guard stands, for people and records."""

    mode: Mode
    needs_human: bool
    latched: str | None
    last_command: NDArray[np.float32] | None
    num_findings: Mapping[str, int] = field(default_factory=dict)
    """Kind -> ticks."""


class Guard:
    """Watches and limits one robot.

    Args:
        limits: of the robot.
        mode: to begin with.
    """

    def __init__(self, limits: MotionLimits, *, mode: Mode = Mode.HOLD) -> None:
        self.limits = limits
        low, high = np.array(limits.ranges).T
        self.limiter = Limiter(
            lowest=low,
            highest=high,
            speed=limits.speed_per_s,
            acceleration=limits.acceleration_per_s2,
            groups=limits.groups,
            longest_tick_s=limits.longest_tick_s,
        )
        self.closing = np.array(limits.closing)
        self.fence = None if limits.workspace is None else Fence(limits.workspace, self.limiter)
        self.body, self.eyes, self.grip = Body(limits), Eyes(limits), Grip(limits)
        self.targets = Targets(limits, self.limiter)
        self.ledger = Ledger(
            faults_until_human=limits.faults_until_human,
            fault_window_s=limits.fault_window_s,
            repeat_note_s=limits.repeat_note_s,
        )
        self.mode = mode
        self.motion: Motion | None = None
        """What is commanded; in shadow, what would be. None until the joints could be read."""
        self.last_target: Vector | None = None
        """None while it holds."""
        self.relief: Vector | None = None
        """Where to hold after the arm pushed against something."""
        self.last_now = -math.inf
        self.num_findings: Counter[str] = Counter()

    def admit(
        self,
        target: NDArray[np.floating] | None,
        reading: Reading | None,
        now: float,
        *,
        frames: Mapping[str, Frame] = NO_FRAMES,
    ) -> Verdict:
        """Judge one tick. Never raises, whatever it is given.

        Args:
            target: [action_dim] where the plan wants the arm; None where nothing is planned.
            reading: the joints; None where they could not be read.
            now: seconds, on the clock of the reading and the frames.
            frames: newest image of each camera; one that was given once is expected to go on.
        """
        elapsed_s = now - self.last_now
        self.last_now = now if math.isfinite(now) else self.last_now
        body = felt(reading, len(self.limits.names))
        state = None if body is None else body.state
        faults = [
            *found(not elapsed_s > 0, "clock", f"The clock went by {elapsed_s:.4f} s since the last tick."),
            *self.body.check(body, self.commanded, now),
            *self.eyes.check(frames, state, now),
        ]
        is_idle = self.mode is Mode.HOLD or self.ledger.latched is not None or must_hold(faults)
        if not is_idle:
            faults += self.targets.check(target, self.last_target, state, now)
        follows = target is not None and not is_idle and not must_hold(faults)
        if self.motion is None:
            self.motion = None if state is None else Motion.at_rest(state)
        elif follows:
            assert body is not None, "joints that cannot be read are a fault"
            assert target is not None
            self.motion, notes = self.moved(self.resumed(self.motion, body), target, body, elapsed_s)
            faults += notes
        elif elapsed_s > 0:
            self.motion = self.held(self.motion, state, elapsed_s, {fault.kind for fault in faults})
        self.last_target = np.asarray(target, dtype=np.float64) if follows else None
        self.num_findings.update(fault.kind for fault in faults)
        news = self.ledger.record(faults, now, may_latch=self.mode is not Mode.SHADOW)
        return Verdict(
            command=rounded(self.commanded),
            proposal=rounded(self.motion and self.motion.position),
            mode=self.mode,
            is_holding=not follows,
            needs_human=self.ledger.latched is not None,
            wants_plan=target is not None and not follows,
            faults=tuple(faults),
            news=news,
        )

    @property
    def commanded(self) -> Vector | None:
        """[joints] what the motors were told; None in shadow, and before the joints were read."""
        return None if self.motion is None or self.mode is Mode.SHADOW else self.motion.position

    def switch(self, mode: Mode) -> None:
        """Change the mode. The arm goes on from its pose: at rest, as measured, where nothing was commanded before."""
        if Mode.SHADOW in (mode, self.mode) and mode is not self.mode:
            self.restart()
        self.mode = mode

    def restart(self) -> None:
        """Begin from the measured pose at the next tick, because something else than the guard held the arm."""
        self.motion = self.last_target = self.relief = None

    def clear(self, by: str) -> str | None:
        """A person, `by` name, has removed the cause; returns why the arm was held, None if it was not.

        Raises:
            ValueError: nobody's name, or the cause is still there.
        """
        if not by.strip():
            raise ValueError("Only a person can clear the guard: say who, clear(by=...).")
        lasting = [f.message for f in self.ledger.present if f.severity is Severity.LATCH and f.kind not in RELIEVED]
        if lasting:
            raise ValueError(f"The cause is still there: {lasting[0]} Remove it, then clear again.")
        return self.ledger.clear()

    @property
    def stopping_time_s(self) -> float:
        """Seconds in which the commanded motion would be at rest, ticks rounded up."""
        return 0.0 if self.motion is None else self.limiter.stopping_time_s(self.motion)

    def state(self) -> GuardState:
        """How it stands."""
        return GuardState(
            mode=self.mode,
            needs_human=self.ledger.latched is not None,
            latched=self.ledger.latched,
            last_command=rounded(self.commanded),
            num_findings=dict(self.num_findings),
        )

    # How the commanded pose changes

    def held(self, motion: Motion, state: Vector | None, elapsed_s: float, kinds: set[str]) -> Motion:
        """Brake and stay; where the arm pushed against something, go back to where it is."""
        if self.relief is None and state is not None and not RELIEVED.isdisjoint(kinds):
            self.relief = np.where(self.closing == 0, state, motion.position)
        if self.relief is None:
            return self.limiter.brake(motion, elapsed_s)
        return self.limiter.follow(motion, self.relief, elapsed_s, self.limits.slow_share)

    def resumed(self, motion: Motion, body: Felt) -> Motion:
        """After holding: from the commanded pose, or from the measured one for joints that are elsewhere by now."""
        self.relief = None
        is_far = np.abs(body.state - motion.position) > np.array(self.limits.tracking_error)
        is_elsewhere = is_far & (motion.velocity == 0) & (self.last_target is None)
        position = np.where(is_elsewhere, body.state, motion.position)
        return Motion(position=position, velocity=motion.velocity, aim=np.where(is_elsewhere, position, motion.aim))

    def moved(
        self, motion: Motion, target: NDArray[np.floating], body: Felt, elapsed_s: float
    ) -> tuple[Motion, list[Fault]]:
        """One tick towards a target that was not refused, and what had to be changed about it."""
        aim = np.clip(np.asarray(target, dtype=np.float64), self.limiter.lowest, self.limiter.highest)
        aim, notes = self.grip.eased(motion.position, aim, body, elapsed_s)
        after, more = self.inside(motion, aim, elapsed_s)
        behind = np.abs(aim - after.position) / (self.limiter.speed * self.limits.period_s)
        worst = int(behind.argmax())
        message = (
            f"The command of {self.limits.named(worst, after.position[worst])} is kept behind the target of "
            f"{aim[worst]:.4g} by the limits of speed and acceleration."
        )
        return after, [*notes, *(more or found(bool(behind[worst] > WORTH_MENTIONING), "limited", message))]

    def inside(self, motion: Motion, aim: Vector, elapsed_s: float) -> tuple[Motion, list[Fault]]:
        """One tick towards a target, as fast as the arm could still brake inside its workspace."""
        pace = {Mode.SLOW: self.limits.slow_share}.get(self.mode, 1.0)
        after = self.limiter.follow(motion, aim, elapsed_s, pace)
        if self.fence is None or self.fence.allows(motion, after):
            return after, []
        braked = self.limiter.brake(motion, elapsed_s)
        slower = [self.limiter.follow(motion, aim, elapsed_s, pace * share) for share in CAUTIOUS_SHARES]
        options = [*slower, joined(after, braked, self.closing != 0)]
        kept = next((option for option in options if self.fence.allows(motion, option)), braked)
        return kept, [Fault(kind="workspace", message=self.fence.described(after) + ": slowed.")]


def rounded(pose: Vector | None) -> NDArray[np.float32] | None:
    """A pose as motors are told it."""
    return None if pose is None else pose.astype(np.float32)


def joined(one: Motion, other: Motion, takes_one: NDArray[np.bool_]) -> Motion:
    """Some joints of one motion, the rest of another."""
    return Motion(
        position=np.where(takes_one, one.position, other.position),
        velocity=np.where(takes_one, one.velocity, other.velocity),
        aim=np.where(takes_one, one.aim, other.aim),
    )
