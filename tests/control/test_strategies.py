"""Which plan counts when, and when the next is asked for."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.control.strategies import WEIGHTS, Course, exponential, make_strategy, sequential

PERIOD_S = 0.1


def course(rows, start_s: float, taken_s: float | None = None) -> Course:
    rows = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    return Course(rows=rows, start_s=start_s, period_s=PERIOD_S, taken_s=start_s if taken_s is None else taken_s)


def test_a_course_is_a_straight_line_between_rows_and_ends_after_the_last_rows_period():
    line = course([0.0, 1.0, 5.0], start_s=10.0)
    assert [line.at(t)[0] for t in (9.0, 10.0, 10.05, 10.1, 10.15, 10.2, 10.25, 99.0)] == pytest.approx(
        [0.0, 0.0, 0.5, 1.0, 3.0, 5.0, 5.0, 5.0]
    )
    assert [line.covers(t) for t in (9.99, 10.0, 10.29, 10.3)] == [False, True, True, False]
    assert course([7.0], start_s=0.0).at(0.05)[0] == 7.0


def test_moments_are_not_missed_by_rounding():
    line = course(np.arange(12.0), start_s=0.0)
    now = 0.0
    for row in range(12):
        assert line.covers(now)
        assert line.at(now)[0] == pytest.approx(row)
        now += PERIOD_S
    assert not line.covers(now), "12 periods later, though their sum is a little less than 1.2"


@pytest.mark.parametrize(
    ("name", "options", "due"),
    [
        ("open-loop", {}, [False, False, False, False, True]),
        ("replan", {"every": 3}, [False, False, True, True, True]),
        ("real-time", {}, [True, True, True, True, True]),
        ("real-time", {"every": 4}, [False, False, False, True, True]),
        ("ensemble", {}, [True] * 5),
        ("blend", {}, [True] * 5),
    ],
)
def test_when_it_asks(name, options, due):
    """A plan of four rows, an answer takes one row."""
    strategy, plan = make_strategy(name, **options), (course([0, 1, 2, 3], start_s=0.0),)
    assert [strategy.is_due(plan, row * PERIOD_S, PERIOD_S) for row in range(5)] == due
    assert strategy.is_due((), 0.0, PERIOD_S), "there is no plan at all"
    assert strategy.name == name


@pytest.mark.parametrize("name", ["open-loop", "replan", "real-time"])
def test_the_newest_plan_counts_alone(name):
    strategy = make_strategy(name)
    courses = strategy.useful((course([0, 0, 0, 0], 0.0), course([9, 9], 0.1)), 0.1)
    assert len(courses) == 1
    assert strategy.target(courses, 0.15)[0] == 9
    assert strategy.target(courses, 0.3) is None
    assert strategy.target((), 0.0) is None


def test_an_ensemble_is_acts_online_average():
    """ACT adds plan after plan to a mean with weights exp(-c i), the oldest first."""
    decay, poses = 0.3, [4.0, -2.0, 7.0, 1.0]
    strategy = make_strategy("ensemble", decay=decay)
    mean, total = 0.0, 0.0
    for i, pose in enumerate(poses):
        weight = np.exp(-decay * i)
        mean, total = (mean * total + pose * weight) / (total + weight), total + weight
        courses = tuple(course([p] * 6, start_s=0.01 * k) for k, p in enumerate(poses[: i + 1]))
        assert strategy.target(courses, 0.2)[0] == pytest.approx(mean)


@given(poses=st.lists(st.floats(-100, 100), min_size=1, max_size=6), old_share=st.sampled_from((0.0, 0.3, 0.5, 0.7)))
def test_sequential_weights_are_mixing_plan_after_plan(poses, old_share):
    mean = poses[0]
    for pose in poses[1:]:
        mean = old_share * mean + (1 - old_share) * pose
    weights = sequential(old_share)(len(poses))
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ poses == pytest.approx(mean)


@pytest.mark.parametrize("rule", WEIGHTS)
def test_every_rule_agrees_with_itself_about_one_plan(rule):
    strategy = make_strategy("ensemble", weights=rule)
    assert strategy.target((course([3.0, 4.0], 0.0),), 0.05)[0] == pytest.approx(3.5)


def test_an_ensemble_forgets_plans_that_are_over_and_asks_only_those_that_cover_the_moment():
    strategy = make_strategy("ensemble", decay=0.0)
    short, long = course([0.0], 0.0), course([10.0] * 9, 0.05)
    assert strategy.target((short, long), 0.08)[0] == 5.0
    assert strategy.target((short, long), 0.2)[0] == 10.0
    assert strategy.useful((short, long), 0.2) == (long,)


def test_blending_begins_at_the_old_plan_and_ends_at_the_new_without_a_step():
    strategy = make_strategy("blend", window_s=0.4)
    old, new = course([0.0] * 9, 0.0), course([8.0] * 9, 0.1, taken_s=0.2)
    times = np.arange(0.2, 0.65, 0.01)
    poses = np.array([strategy.target((old, new), t)[0] for t in times])
    assert poses[0] == 0.0
    assert strategy.target((old, new), 0.4)[0] == pytest.approx(4.0)
    assert strategy.target((old, new), 0.6)[0] == pytest.approx(8.0)
    assert (np.diff(poses) >= 0).all()
    assert np.diff(poses).max() < 8.0 * 1.5 * 0.01 / 0.4 + 1e-9, "the steepest part of the fade"
    assert strategy.useful((old, new), 0.5) == (old, new)
    assert strategy.useful((old, new), 0.6) == (new,)


def test_blending_into_a_blend_goes_on_from_it():
    strategy = make_strategy("blend", window_s=0.4)
    courses = (course([0.0] * 9, 0.0), course([8.0] * 9, 0.0, taken_s=0.2), course([-8.0] * 9, 0.0, taken_s=0.4))
    before, after = strategy.target(courses[:2], 0.4)[0], strategy.target(courses, 0.4)[0]
    assert before == after == pytest.approx(4.0)


def test_a_blend_is_over_with_its_newest_plan():
    strategy = make_strategy("blend", window_s=0.4)
    assert strategy.target((course([0.0] * 9, 0.0), course([8.0], 0.1)), 0.3) is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("openloop", {}, "Did you mean 'open-loop'"),
        ("ensemble", {"weights": "mean"}, "rule of weights"),
        ("ensemble", {"decay": float("nan")}, "finite"),
        ("ensemble", {"weights": "average", "decay": 0.1}, "exponential"),
        ("replan", {"every": 0}, "every=0"),
        ("real-time", {"every": 0}, "every=0"),
        ("blend", {"window_s": 0.0}, "window_s=0.0"),
    ],
)
def test_a_wrong_choice_says_what_is_right(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, **options)


def test_positive_decay_trusts_the_older():
    for decay, older_counts_more in itertools.product((0.5, -0.5), (0,)):
        weights = exponential(decay)(3)
        assert (weights[older_counts_more] > weights[2]) == (decay > 0)
