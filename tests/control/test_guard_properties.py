"""Whatever happens, every command is finite, in range, and within speed and acceleration of the one before."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from molmoact2.control.guard import Guard, Mode, Severity
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Frame, Reading
from molmoact2.embodiments import SO101_TABLETOP

LIMITS = MotionLimits.of(SO101_TABLETOP)
FREE = replace(LIMITS, workspace=None)
LOW, HIGH = np.array(LIMITS.ranges).T
SPEED, ACCELERATION = np.array(LIMITS.speed_per_s), np.array(LIMITS.acceleration_per_s2)
TRACKING = np.array(LIMITS.tracking_error)
DT = 1 / 15
IMAGE = np.zeros((4, 4, 3), dtype=np.uint8)

wild = st.one_of(
    st.floats(-120, 120), st.sampled_from((math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324)), st.floats()
)
arrays = st.lists(wild, min_size=6, max_size=6).map(np.array)
poses = st.tuples(*[st.floats(low, high) for low, high in LIMITS.ranges]).map(np.array)
misshapen = st.sampled_from((np.zeros(5), np.zeros((6, 1)), np.zeros(0), np.float64(3.0)))
steps_away = st.lists(st.floats(-30, 30), min_size=6, max_size=6).map(np.array)
ticks_s = st.one_of(st.just(DT), st.floats(0.001, 0.3), st.sampled_from((0.0, -1.0, 3.0, 1e4, math.nan, math.inf)))
loads = st.none() | st.lists(st.floats(width=32), min_size=6, max_size=6).map(lambda x: np.array(x, dtype=np.float32))


def assert_continues(before: np.ndarray, velocity: np.ndarray, after: np.ndarray, dt: float) -> np.ndarray:
    """The command keeps the bounds; returns its velocity."""
    assert after.dtype == np.float32
    assert after.shape == (6,)
    assert np.isfinite(after).all()
    rounding = 1e-4
    step = after.astype(float) - before
    outside = np.maximum(np.maximum(LOW - before, before - HIGH), 0)
    assert (np.maximum(LOW - after, after - HIGH) <= outside).all(), "out of range, or further out than before"
    if not dt > 0:
        assert (step == 0).all()
        return velocity
    assert (np.abs(step) <= SPEED * dt + rounding).all()
    moved = step / min(dt, LIMITS.longest_tick_s)
    assert (np.abs(moved - velocity) <= ACCELERATION * dt + rounding / min(dt, 0.2)).all()
    return moved


@st.composite
def readings(draw, now: float, commanded: np.ndarray) -> Reading | None:
    kind = draw(st.sampled_from(("near", "near", "near", "wild", "misshapen", "none")))
    match kind:
        case "near":
            state = commanded + draw(steps_away) / 10
        case "wild":
            state = draw(arrays)
        case "misshapen":
            state = draw(misshapen)
        case _:
            return None
    with np.errstate(over="ignore"):
        state = np.asarray(state, dtype=np.float32)
    age_s = draw(st.sampled_from((0.0, 0.0, 0.05, 1.0, -1.0, math.nan)))
    return Reading(
        time_s=now - age_s, state=state, effort=draw(loads), current_a=draw(loads), temperature_c=draw(loads)
    )


@given(data=st.data(), limits=st.sampled_from((FREE, LIMITS)), start=poses)
@settings(max_examples=80)
def test_no_input_makes_the_command_leave_its_bounds(data, limits, start):
    guard = Guard(limits, mode=Mode.FULL)
    now, command, velocity = 10.0, start.astype(np.float32).astype(float), np.zeros(6)
    verdict = guard.admit(None, Reading(time_s=now, state=start.astype(np.float32)), now)
    np.testing.assert_array_equal(verdict.command, command)
    for _ in range(data.draw(st.integers(1, 25))):
        dt = data.draw(ticks_s)
        moment = now + dt
        target = data.draw(st.one_of(st.none(), poses, arrays, misshapen, steps_away.map(lambda x, c=command: c + x)))
        frame = Frame(image=IMAGE, time_s=data.draw(st.sampled_from((moment, moment - 9, math.nan))))
        reading = data.draw(readings(moment, command))
        frames = data.draw(st.sampled_from(({}, {"front": frame})))
        was_holding = verdict.is_holding
        verdict = guard.admit(target, reading, moment, frames=frames)
        if was_holding and not verdict.is_holding:
            # The one exception: after holding, joints that are elsewhere by now go on from where they are.
            is_elsewhere = (np.abs(reading.state - command) > TRACKING) & (np.abs(velocity) < 1e-3)
            command = np.where(is_elsewhere, reading.state, command)
        velocity = assert_continues(command, velocity, verdict.command, dt)
        command = verdict.command.astype(float)
        now = moment if math.isfinite(moment) else now
        assert all(isinstance(reason, str) and reason for reason in verdict.reasons)
        if verdict.needs_human or any(fault.severity > Severity.NOTE for fault in verdict.faults):
            assert verdict.is_holding


@given(data=st.data(), start=poses, fault=st.sampled_from(("nothing", "nan", "unread", "hot", "hold")))
@settings(max_examples=60)
def test_after_any_fault_the_motion_stops_in_time_and_stays(data, start, fault):
    guard = Guard(FREE, mode=Mode.FULL)
    now, command = 10.0, start
    for _ in range(data.draw(st.integers(1, 12))):
        now += DT
        target = np.clip(command + data.draw(steps_away) * 0.8, LOW, HIGH)
        command = guard.admit(target, Reading(time_s=now, state=command.astype(np.float32)), now).command
    stopping_s, commands, dt = guard.stopping_time_s, [command], data.draw(st.floats(0.01, 0.1))
    if fault == "hold":
        guard.switch(Mode.HOLD)
    for _ in range(math.ceil(stopping_s / dt) + 15):
        now += dt
        reading = Reading(
            time_s=now,
            state=commands[-1],
            temperature_c=np.full(6, 99.0 if fault == "hot" else 20.0, dtype=np.float32),
        )
        verdict = guard.admit(
            {"nothing": None, "nan": command * np.nan}.get(fault, command + 1),
            None if fault == "unread" else reading,
            now,
        )
        assert verdict.is_holding
        commands.append(verdict.command)
    rest = commands[math.ceil(stopping_s / dt) + 1 :]
    assert all(np.array_equal(pose, rest[0]) for pose in rest)
    travelled = np.abs(rest[0].astype(float) - command)
    assert (travelled <= SPEED**2 / (2 * ACCELERATION) + 1e-3).all(), "no further than it takes to brake"


@given(data=st.data(), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_the_fingertips_never_go_below_the_table(data, seed):
    """Wandering targets anywhere near the arm, in every rhythm; whoever begins above the table stays there."""
    rng = np.random.default_rng(seed)
    chain = LIMITS.workspace.chain

    def lowest_m(pose: np.ndarray) -> float:
        return float(chain.positions_m(pose[None])[0, :, 2].min())

    start = np.array((0.0, -20.0, 30.0, 60.0, 0.0, 40.0)) + rng.normal(0, 15, 6) * (1, 1, 1, 1, 1, 0)
    assume(lowest_m(start) > 0.01)
    guard, now, command = Guard(LIMITS, mode=data.draw(st.sampled_from((Mode.FULL, Mode.SLOW)))), 0.0, start
    guard.admit(None, Reading(time_s=now, state=start.astype(np.float32)), now)
    towards = rng.normal(0, 1, 6) * (5, 20, 20, 20, 10, 20)
    for _ in range(25):
        now += data.draw(st.sampled_from((DT, DT, 0.02, 0.1)))
        towards += rng.normal(0, 6, 6)
        target = np.clip(command + np.clip(towards, -24, 24), LOW, HIGH)
        verdict = guard.admit(target, Reading(time_s=now, state=command.astype(np.float32)), now)
        command = verdict.command.astype(float)
        assert lowest_m(command) >= -5e-4


class Operated(RuleBasedStateMachine):
    """An arm that follows its commands, a plan that wanders, an operator, and things that break and are mended."""

    @initialize()
    def begin(self) -> None:
        self.guard = Guard(FREE, mode=Mode.HOLD)
        self.now = 100.0
        self.arm = np.array((0.0, -20.0, 30.0, 60.0, 0.0, 40.0), dtype=np.float32)
        self.velocity = np.zeros(6)
        self.is_hot = False
        self.has_command = False
        self.verdict = self.tick(None)

    def tick(self, target):
        self.now += DT
        temperature_c = np.full(6, 80.0 if self.is_hot else 30.0, dtype=np.float32)
        verdict = self.guard.admit(
            target, Reading(time_s=self.now, state=self.arm, temperature_c=temperature_c), self.now
        )
        if verdict.command is None:
            self.has_command = False
        else:
            before = self.arm.astype(float)
            self.velocity = assert_continues(
                before, self.velocity if self.has_command else np.zeros(6), verdict.command, DT
            )
            self.arm, self.has_command = verdict.command, True
        self.verdict = verdict
        return verdict

    @rule(change=steps_away, ticks=st.integers(1, 6))
    def follow(self, change, ticks):
        for _ in range(ticks):
            self.tick(np.clip(self.arm + change * 0.8, LOW, HIGH))

    @rule()
    def send_nonsense(self):
        was_judged = self.guard.mode is not Mode.HOLD and not self.guard.state().needs_human and not self.is_hot
        verdict = self.tick(self.arm * np.nan)
        assert verdict.is_holding
        assert bool(verdict.faults) or not was_judged

    @rule(mode=st.sampled_from(Mode))
    def switch(self, mode):
        self.guard.switch(mode)

    @rule()
    def heat(self):
        self.is_hot = True
        self.tick(None)

    @rule()
    def cool(self):
        self.is_hot = False
        self.tick(None)

    @precondition(lambda self: not self.is_hot)
    @rule()
    def clear(self):
        self.guard.clear(by="Ada")
        assert not self.guard.state().needs_human

    @precondition(lambda self: self.is_hot and self.guard.state().needs_human)
    @rule()
    def clear_too_early(self):
        with pytest.raises(ValueError, match="still there"):
            self.guard.clear(by="Ada")
        assert self.guard.state().needs_human

    @rule()
    def rest(self):
        """Without a target the arm is at rest after its stopping time."""
        for _ in range(math.ceil(self.guard.stopping_time_s / DT) + 1):
            self.tick(None)
        still = self.arm
        assert self.guard.stopping_time_s == 0
        self.tick(None)
        np.testing.assert_array_equal(self.arm, still)

    @invariant()
    def whoever_must_not_move_holds(self):
        verdict = self.verdict
        if verdict.needs_human or verdict.mode is Mode.HOLD:
            assert verdict.is_holding
        assert (verdict.command is None) == (verdict.mode is Mode.SHADOW)


TestOperated = Operated.TestCase
TestOperated.settings = settings(max_examples=40, stateful_step_count=25)
