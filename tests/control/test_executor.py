"""Plans become targets by measured time, and a plan that cannot be executed is dropped for a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.control.executor import Executor
from molmoact2.control.plan import Plan
from molmoact2.control.strategies import make_strategy

HZ = 10.0


def plan(rows, observed_at_s: float, sequence: int, arrived_at_s: float = 0.0, period_s: float = 1 / HZ) -> Plan:
    actions = np.array(rows, dtype=np.float32)
    return Plan(
        actions=actions.reshape(len(actions), -1) if actions.ndim < 2 else actions,
        observed_at_s=observed_at_s,
        period_s=period_s,
        sequence=sequence,
        arrived_at_s=arrived_at_s,
    )


def executor(name: str = "replan", action_dim: int = 1, **options) -> Executor:
    return Executor(make_strategy(name, **options), action_dim, HZ)


def test_rows_are_executed_when_they_are_due():
    arm = executor(every=3)
    assert arm.target(0.0) is None
    assert arm.needs_plan(0.0)
    assert arm.take(plan([0, 1, 2, 3, 4], 0.0, 0), 0.0) is None
    assert arm.target(0.25) == pytest.approx(2.5)
    assert arm.take(plan([12, 13, 14, 15, 16], 0.2, 1), 0.37) is None
    assert arm.target(0.37) == pytest.approx(13.7), "the rows before have passed and are not made up for"
    assert arm.target(0.65) == pytest.approx(16.0)
    assert arm.target(0.7) is None


def test_a_plan_for_an_arm_that_waited_begins_when_it_comes():
    arm = executor("open-loop")
    arm.take(plan([5, 6, 7], 0.0, 0), 0.2)
    assert arm.target(0.2) == pytest.approx(5.0)
    assert not arm.needs_plan(0.4)
    assert arm.needs_plan(0.5)
    arm.take(plan([7, 8, 9], 0.5, 1), 0.75)
    assert arm.target(0.75) == pytest.approx(7.0)


def test_a_plan_for_an_arm_that_moved_does_not():
    arm = executor("open-loop")
    arm.take(plan([5, 6, 7], 0.0, 0), 0.0)
    arm.take(plan([7, 8, 9], 0.2, 1), 0.4)
    assert arm.target(0.4) == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        (plan([[1, 2]], 1.0, 5), "width", "rows of 1"),
        (plan(np.zeros((0, 1)), 1.0, 5), "width", "shape"),
        (plan([1.0, np.nan], 1.0, 5), "non-finite", "finite"),
        (plan([1.0], 2.0, 5), "timing", "observed -1.000 s ago"),
        (plan([1.0], float("nan"), 5), "timing", "observed"),
        (plan([1.0], 1.0, 5, period_s=0.05), "timing", "0.1000 s"),
        (plan([1.0] * 9, 0.8, 3), "out of order", "plan 3 of a newer"),
        (plan([1.0] * 9, 0.1, 5), "overtaken", "before the arm was stopped"),
        (plan([1.0, 2.0], 0.7, 5), "late", "0.30 s old and covers 0.20 s"),
    ],
)
def test_a_plan_that_cannot_be_executed_is_dropped_and_changes_nothing(wrong, kind, words):
    arm = executor("replan")
    arm.reset(0.5)
    arm.take(plan(np.arange(9), 0.9, 3), 0.9)
    before = arm.remaining(1.0)
    trouble = arm.take(wrong, 1.0)
    assert trouble is not None
    assert trouble.sequence == wrong.sequence
    assert words in trouble.message
    assert arm.progress(1.0).num_dropped == {kind: 1}
    assert arm.progress(1.0).num_taken == 1
    np.testing.assert_array_equal(arm.remaining(1.0), before)


def test_what_remains_begins_now():
    arm = executor()
    assert arm.remaining(0.0).shape == (0, 1)
    arm.take(plan([0, 1, 2, 3], 0.0, 0), 0.0)
    np.testing.assert_allclose(arm.remaining(0.1), [[1], [2], [3]], atol=1e-4)
    np.testing.assert_allclose(arm.remaining(0.25), [[2.5], [3.0]], atol=1e-4)
    assert arm.remaining(9.0).shape == (0, 1)
    assert arm.remaining(0.1).dtype == np.float32


def test_what_remains_is_what_is_executed_when_nothing_else_comes():
    arm = executor("blend", window_s=0.3)
    arm.take(plan([0, 1, 2, 3, 4, 5, 6], 0.0, 0), 0.0)
    arm.take(plan([9, 9, 9, 9, 9, 9, 9], 0.1, 1), 0.2)
    promised = arm.remaining(0.2)
    np.testing.assert_allclose(promised, [arm.target(0.2 + i / HZ) for i in range(len(promised))], atol=1e-3)
    assert len(promised) == 6


def test_latency_is_what_is_seldom_exceeded():
    arm = executor("real-time")
    assert arm.latency_steps == 2, "of the guess before the first plan"
    slow_first = (3.0, 0.12, 0.11, 0.13, 0.12)
    for sequence, latency_s in enumerate(slow_first):
        now = 10.0 * (sequence + 1)
        arm.take(plan(np.zeros(99), now - latency_s, sequence), now)
    assert arm.latency_s == pytest.approx(0.13)
    assert arm.latency_steps == 2
    for sequence in range(5, 30):
        arm.take(plan(np.zeros(99), 99.0 + sequence, sequence), 99.1 + sequence)
    assert arm.latency_steps == 1, "it follows the last plans, and 0.1 s is exactly one row"


def test_plans_that_are_too_late_count_as_latency():
    arm = executor()
    for sequence in range(3):
        assert arm.take(plan(np.zeros(2), float(sequence), sequence), sequence + 0.7) is not None
    assert arm.latency_steps == 7


def test_it_asks_early_by_the_latency():
    arm = executor(every=5)
    arm.take(plan(np.zeros(20), 0.0, 0), 0.2)
    start_s = arm.courses[0].start_s
    assert not arm.needs_plan(start_s + 0.25)
    assert arm.needs_plan(start_s + 0.3)


def test_after_a_reset_nothing_is_planned():
    arm = executor()
    arm.take(plan(np.arange(9), 0.0, 0), 0.0)
    arm.reset(0.3)
    assert arm.target(0.3) is None
    assert arm.needs_plan(0.3)
    assert arm.take(plan(np.arange(9), 0.2, 1), 0.4) is not None
    assert arm.take(plan(np.arange(9), 0.4, 2), 0.5) is None


def test_a_committed_plan_is_continued_exactly():
    """What real-time chunking promises: the new plan begins with the rows that the old one still had."""
    arm = executor("real-time")
    arm.take(plan(np.arange(12), 0.0, 0), 0.0)
    committed = arm.remaining(0.3)
    before = [arm.target(t) for t in (0.3, 0.35, 0.4, 0.45)]
    continued = np.concatenate([committed[:3], 50 + np.zeros((9, 1), dtype=np.float32)])
    arm.take(plan(continued, 0.3, 1), 0.45)
    np.testing.assert_allclose([arm.target(t) for t in (0.3, 0.35, 0.4, 0.45)], before, atol=1e-4)


numbers = st.one_of(st.floats(-10, 10), st.sampled_from((np.nan, np.inf, 1e30)))
plans = st.builds(
    plan,
    rows=st.lists(numbers, min_size=1, max_size=6),
    observed_at_s=st.one_of(st.floats(-1, 3), st.sampled_from((np.nan, np.inf, -np.inf))),
    sequence=st.integers(-2, 8),
    period_s=st.sampled_from((0.1, 0.1, 0.1, 0.05, 0.0, -0.1, np.nan)),
)


@given(
    events=st.lists(st.tuples(st.floats(0, 3), st.none() | plans), max_size=25),
    name=st.sampled_from(("open-loop", "replan", "ensemble", "blend", "real-time")),
)
def test_whatever_comes_every_target_is_finite_and_within_the_plans(events, name):
    arm = executor(name)
    seen = [0.0]
    for now, new in sorted(events, key=lambda event: event[0]):
        if new is not None and arm.take(new, now) is None:
            seen += new.actions.ravel().tolist()
        target = arm.target(now)
        if target is not None:
            assert np.isfinite(target).all()
            assert min(seen) - 1e-4 <= target[0] <= max(seen) * (1 + 1e-6) + 1e-4
        assert np.isfinite(arm.remaining(now)).all()
        assert arm.latency_steps >= 0
        assert isinstance(arm.needs_plan(now), bool)
    assert arm.num_taken + sum(arm.dropped.values()) == sum(new is not None for _, new in events)
