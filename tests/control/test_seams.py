"""Executor and guard together: no seam between plans is felt, whatever the network does to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.control.executor import Executor
from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.plan import Plan
from molmoact2.control.robot import Reading
from molmoact2.control.strategies import STRATEGIES, make_strategy
from molmoact2.embodiments import SO101_TABLETOP

LIMITS = MotionLimits.of(SO101_TABLETOP)
LOW, HIGH = np.array(LIMITS.ranges).T
SPEED, ACCELERATION = np.array(LIMITS.speed_per_s), np.array(LIMITS.acceleration_per_s2)
PERIOD_S = LIMITS.period_s
POSE = np.array((0.0, -60.0, 30.0, 60.0, 0.0, 40.0))
"""High above the table."""


@st.composite
def journeys(draw) -> list[tuple[float, Plan]]:
    """Plans with the moments at which they arrive: late, doubled, out of order, contradicting one another, or never."""
    events, observed_at_s = [], 0.0
    for sequence in range(draw(st.integers(1, 8))):
        observed_at_s += draw(st.floats(0.05, 0.8))
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        rows = draw(st.integers(1, 20))
        drift = rng.normal(0, draw(st.sampled_from((0.0, 1.0, 8.0, 60.0))), 6)
        actions = POSE + rng.normal(0, 8, 6) + drift * np.arange(rows)[:, None] + rng.normal(0, 3, (rows, 6))
        arrives_s = observed_at_s + draw(st.sampled_from((0.0, 0.05, 0.1, 0.4, 1.5)))
        plan = Plan(
            actions=np.clip(actions, LOW, HIGH).astype(np.float32),
            observed_at_s=observed_at_s,
            period_s=PERIOD_S,
            sequence=sequence,
            arrived_at_s=arrives_s,
        )
        events += [(arrives_s + 0.1 * again, plan) for again in range(draw(st.sampled_from((0, 1, 1, 1, 2))))]
    return events


@given(
    journey=journeys(),
    name=st.sampled_from(sorted(STRATEGIES)),
    command_hz=st.sampled_from((15.0, 30.0, 100.0)),
    late_ticks=st.lists(st.floats(0.0, 0.1), min_size=1, max_size=7),
)
@settings(max_examples=60)
def test_position_speed_and_acceleration_keep_their_bounds_across_all_seams(journey, name, command_hz, late_ticks):
    executor = Executor(make_strategy(name), 6, 1 / PERIOD_S)
    guard = Guard(LIMITS, mode=Mode.FULL)
    command, velocity, now = POSE, np.zeros(6), 0.0
    guard.admit(None, Reading(time_s=now, state=POSE.astype(np.float32)), now)
    waiting = sorted(journey, key=lambda event: event[0])
    for tick in range(120):
        dt = 1 / command_hz + late_ticks[tick % len(late_ticks)] * (tick % 5 == 0)
        now += dt
        while waiting and waiting[0][0] <= now:
            executor.take(waiting.pop(0)[1], now)
        verdict = guard.admit(executor.target(now), Reading(time_s=now, state=command.astype(np.float32)), now)
        if verdict.wants_plan:
            executor.reset(now)
        after = verdict.command.astype(float)
        moved = (after - command) / dt
        assert (np.clip(after, LOW, HIGH) == after).all()
        assert (np.abs(moved) <= SPEED + 1e-4 / dt).all()
        assert (np.abs(moved - velocity) <= ACCELERATION * dt + 1e-4 / dt).all()
        command, velocity = after, moved
        guard.ledger.clear()
    if executor.target(now) is None and not waiting:
        for _ in range(40):
            now += 0.05
            command = guard.admit(None, Reading(time_s=now, state=command.astype(np.float32)), now).command
        assert guard.stopping_time_s == 0.0, "without a plan the arm is at rest"


def smooth(times: np.ndarray) -> np.ndarray:
    """A motion well within the bounds, that begins at rest."""
    eased = np.clip(times / 2, 0, 1) ** 2 * (3 - 2 * np.clip(times / 2, 0, 1))
    return POSE + np.outer(eased * np.sin(1.5 * times), (20, 10, 15, 12, 30, 20))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("latency_s", [0.0, 0.1, 0.35])
def test_plans_that_agree_are_executed_as_if_they_were_one(name, latency_s):
    """Perfect plans of one smooth motion: what is executed is that motion, whatever the strategy and the latency."""
    executor, guard = Executor(make_strategy(name), 6, 1 / PERIOD_S), Guard(LIMITS, mode=Mode.FULL)
    asked_s, sequence, executed = None, 0, []
    command = POSE
    for tick in range(90):
        now = tick * PERIOD_S
        if asked_s is not None and now - asked_s >= latency_s - 1e-9:
            rows = (
                smooth(asked_s + np.arange(24) * PERIOD_S)
                if name != "open-loop"
                else smooth(now + np.arange(24) * PERIOD_S)
            )
            plan = Plan(
                actions=rows.astype(np.float32),
                observed_at_s=asked_s,
                period_s=PERIOD_S,
                sequence=sequence,
                arrived_at_s=now,
            )
            assert executor.take(plan, now) is None
            asked_s, sequence = None, sequence + 1
        if asked_s is None and executor.needs_plan(now):
            asked_s = now
        target = executor.target(now)
        verdict = guard.admit(target, Reading(time_s=now, state=command.astype(np.float32)), now)
        command = verdict.command
        if target is not None and now > 3 * latency_s + 2 and name != "open-loop":
            np.testing.assert_allclose(command, smooth(np.array([now]))[0], atol=0.02)
            executed.append(now)
    assert len(executed) > 30 or name == "open-loop"
    assert guard.state().num_findings.keys() <= {"limited", "jump"}


def test_committed_rows_are_executed_and_the_new_plan_follows_without_a_seam():
    executor, guard = Executor(make_strategy("real-time"), 6, 1 / PERIOD_S), Guard(LIMITS, mode=Mode.FULL)
    rows = smooth(np.arange(20) * PERIOD_S).astype(np.float32)

    def plan(actions, row: int, sequence: int) -> Plan:
        now = row * PERIOD_S
        return Plan(actions=actions, observed_at_s=now, period_s=PERIOD_S, sequence=sequence, arrived_at_s=now)

    executor.take(plan(rows, 0, 0), 0.0)
    committed = executor.remaining(5 * PERIOD_S)
    commands = []
    for tick in range(20):
        now = tick * PERIOD_S
        if tick == 8:
            executor.take(plan(np.concatenate([committed[:3], rows[8:]]), 5, 1), now)
        reading = Reading(time_s=now, state=rows[max(tick - 1, 0)])
        commands.append(guard.admit(executor.target(now), reading, now).command)
    np.testing.assert_allclose(commands[1:], rows[1:20], atol=1e-3)
    assert not guard.state().num_findings
