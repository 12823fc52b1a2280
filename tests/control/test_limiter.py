"""Speed, acceleration and range are kept whatever the target does, and a target that keeps them is followed exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.control.limiter import Limiter, Motion

LOW, HIGH = (-1.0, -2.0, 0.0), (1.0, 3.0, 100.0)
SPEED, ACCELERATION = (2.0, 1.0, 300.0), (5.0, 8.0, 3000.0)
GROUPS = (0, 0, 1)
ROUNDING = 1e-9

ticks_s = st.floats(0.001, 0.2)
long_ticks_s = st.floats(0.001, 30.0)
joint_values = st.one_of(st.floats(-5, 120), st.floats(-1e6, 1e6), st.sampled_from((*LOW, *HIGH)))
targets = st.tuples(joint_values, joint_values, joint_values)
poses = st.tuples(st.floats(-1, 1), st.floats(-2, 3), st.floats(0, 100))
paces = st.sampled_from((1.0, 0.25, 0.05))


@pytest.fixture(scope="module")
def limiter() -> Limiter:
    return make()


def make(groups=GROUPS) -> Limiter:
    return Limiter(lowest=LOW, highest=HIGH, speed=SPEED, acceleration=ACCELERATION, groups=groups)


def assert_step_keeps_bounds(before: Motion, after: Motion, elapsed_s: float, scale: float = 1.0):
    speed, acceleration = np.array(SPEED), np.array(ACCELERATION)
    tolerance = ROUNDING * (1 + speed)
    assert np.isfinite(after.position).all()
    assert (np.abs(after.velocity) <= speed + tolerance).all()
    assert (np.abs(after.position - before.position) <= speed * elapsed_s + tolerance).all()
    assert (np.abs(after.velocity - before.velocity) <= scale * acceleration * elapsed_s + tolerance).all()
    assert (after.position >= np.array(LOW) - tolerance).all()
    assert (after.position <= np.array(HIGH) + tolerance).all()


@given(start=poses, steps=st.lists(st.tuples(targets, long_ticks_s, paces, st.booleans()), max_size=30))
def test_every_step_keeps_speed_acceleration_and_range(limiter, start, steps):
    motion = Motion.at_rest(start)
    for target, elapsed_s, pace, brakes in steps:
        after = limiter.brake(motion, elapsed_s) if brakes else limiter.follow(motion, target, elapsed_s, pace)
        assert_step_keeps_bounds(motion, after, elapsed_s)
        motion = after


@given(
    start=poses,
    steps=st.lists(st.tuples(targets, ticks_s), max_size=30),
    dts=st.lists(ticks_s, min_size=40, max_size=40),
)
def test_it_can_always_stop_inside_the_range_in_the_time_it_says(limiter, start, steps, dts):
    motion = Motion.at_rest(start)
    for target, dt in steps:
        motion = limiter.follow(motion, target, dt)
    deadline_s, passed_s, path = limiter.stopping_time_s(motion), 0.0, limiter.stopping_path(motion, 4)
    np.testing.assert_array_equal(path[0], motion.position)
    first, low, high = motion, np.minimum(path[0], path[-1]), np.maximum(path[0], path[-1])
    for dt in dts * 10:
        after = limiter.brake(motion, dt)
        assert_step_keeps_bounds(motion, after, dt)
        assert (np.abs(after.velocity) <= np.abs(motion.velocity)).all()
        assert (after.position >= low - ROUNDING).all()
        assert (after.position <= high + ROUNDING).all()
        motion, passed_s = after, passed_s + dt
        if passed_s >= deadline_s:
            break
    assert np.abs(motion.velocity).max() <= ROUNDING, f"still moving after {passed_s} s of {deadline_s} s from {first}"
    np.testing.assert_array_equal(limiter.brake(motion, 0.1).position, motion.position)


@given(start=poses, target=poses, dts=st.lists(st.floats(0.01, 0.2), min_size=1, max_size=20))
@settings(max_examples=50)
def test_a_target_that_stands_still_is_reached_and_not_passed(limiter, start, target, dts):
    motion = Motion(position=np.array(start), velocity=np.zeros(3), aim=np.array(target))
    assert_reached_from_one_side(limiter, motion, target, dts)


@given(start=poses, target=poses, dt=st.floats(0.01, 0.2))
@settings(max_examples=50)
def test_a_target_that_jumps_is_reached_and_not_passed(limiter, start, target, dt):
    assert_reached_from_one_side(limiter, Motion.at_rest(start), target, [dt])


def assert_reached_from_one_side(limiter: Limiter, motion: Motion, target, dts: list[float]):
    side = np.sign(target - motion.position)
    for tick in range(2000):
        motion = limiter.follow(motion, target, dts[tick % len(dts)])
        assert (side * (motion.position - target) <= 1e-6).all(), "passed"
        if np.abs(motion.position - target).max() < 1e-7:
            break
    np.testing.assert_allclose(motion.position, target, atol=1e-7)


@given(start=poses, before=st.lists(st.tuples(targets, ticks_s), max_size=10), target=poses)
@settings(max_examples=60)
def test_whatever_came_before_a_target_that_stands_still_is_reached(limiter, start, before, target):
    motion = Motion.at_rest(start)
    for earlier, dt in before:
        motion = limiter.follow(motion, earlier, dt)
    for _ in range(1000):
        motion = limiter.follow(motion, target, 0.02)
        if np.abs(motion.position - target).max() < 1e-8 and np.abs(motion.velocity).max() < 1e-6:
            break
    np.testing.assert_allclose(motion.position, target, atol=1e-7)


@given(start=poses, steps=st.lists(st.tuples(st.tuples(*[st.floats(0, 1)] * 3), ticks_s), max_size=40))
def test_a_target_within_the_bounds_is_followed_without_lag(limiter, start, steps):
    """The targets are any motion that keeps the bounds: each picks a velocity among those that are reachable."""
    motion = Motion.at_rest(start)
    for shares, dt in steps:
        low, high = (np.clip(x, -np.array(SPEED), SPEED) for x in limiter.reachable(motion, dt, 1.0))
        target = motion.position + (low + np.array(shares) * (high - low)) * dt
        motion = limiter.follow(motion, target, dt)
        np.testing.assert_allclose(motion.position, target, rtol=0, atol=1e-9)


@pytest.mark.parametrize("hz", [15, 50, 200])
def test_smooth_motion_is_followed_without_lag(limiter, hz):
    middle, reach = np.array((0.0, 0.5, 50.0)), np.array((0.4, 0.5, 20.0))
    rate = 0.8 * np.minimum(SPEED / reach, np.sqrt(ACCELERATION / reach))
    times = np.arange(0, 10, 1 / hz)[:, None]
    eased = np.clip(times / 2, 0, 1) ** 2 * (3 - 2 * np.clip(times / 2, 0, 1))
    path = middle + eased * reach * np.sin(rate * times)
    motion = Motion.at_rest(path[0])
    for target in path[1:]:
        motion = limiter.follow(motion, target, 1 / hz)
        np.testing.assert_allclose(motion.position, target, rtol=0, atol=1e-9)


def test_a_group_keeps_its_direction():
    limiter, start, target = make(groups=(0, 0, 0)), np.array((0.0, 0.0, 50.0)), np.array((0.9, 0.3, 51.0))
    motion = Motion.at_rest(start)
    for _ in range(400):
        motion = limiter.follow(motion, target, 0.02)
        share = (motion.position - start) / (target - start)
        np.testing.assert_allclose(share, share[0], atol=1e-6)
    np.testing.assert_allclose(share, 1.0, atol=1e-6)


def test_another_group_does_not_wait(limiter):
    start, target = np.array((0.0, 0.0, 0.0)), np.array((0.001, 0.0, 100.0))
    motion = limiter.follow(Motion.at_rest(start), target, 0.05)
    np.testing.assert_allclose(motion.position[0], 0.001, atol=1e-4)
    assert motion.position[2] < 10


def test_it_is_as_fast_as_the_bounds_allow():
    """From rest to rest over a distance d: the closed form of the fastest motion, d / v + v / a, up to a few ticks."""
    limiter = Limiter(lowest=[-10], highest=[10], speed=[2.0], acceleration=[4.0])
    motion, dt, ticks = Motion.at_rest([0.0]), 0.005, 0
    while abs(motion.position[0] - 5.0) > 1e-3:
        motion, ticks = limiter.follow(motion, [5.0], dt), ticks + 1
    assert 5 / 2 + 2 / 4 - 0.05 <= ticks * dt <= 5 / 2 + 2 / 4 + 6 * dt + math.sqrt(2 * 1e-3 / 4)


def test_after_a_long_pause_the_joints_begin_from_rest():
    limiter = make()
    motion = Motion.at_rest((-0.9, 0.0, 50.0))
    for _ in range(8):
        motion = limiter.follow(motion, (0.9, 0.0, 50.0), 0.05)
    assert motion.velocity[0] > 1.5
    assert abs(limiter.brake(motion, 10.0).velocity[0]) == 0.0
    gentle = limiter.follow(motion, (0.9, 0.0, 50.0), 10.0, 0.01)
    assert gentle.velocity[0] <= 0.01 * ACCELERATION[0] * limiter.longest_tick_s + ROUNDING


def test_from_outside_its_range_a_joint_only_moves_inwards(limiter):
    motion = Motion.at_rest((1.5, 0.0, 50.0))
    for target in ((9.0, 0.0, 50.0),) * 20 + ((0.0, 0.0, 50.0),) * 100:
        after = limiter.follow(motion, target, 0.02)
        assert after.position[0] <= motion.position[0]
        motion = after
    assert abs(motion.position[0]) < 1e-6


@given(start=poses, target=targets, before=st.lists(st.tuples(targets, ticks_s), max_size=6))
def test_slow_is_slower_and_brakes_as_hard(limiter, start, target, before):
    motion = Motion.at_rest(start)
    for earlier, dt in before:
        motion = limiter.follow(motion, earlier, dt)
    for _ in range(40):
        after = limiter.follow(motion, target, 0.05, 0.25)
        gained = np.abs(after.velocity) - np.abs(motion.velocity)
        turned = after.velocity * motion.velocity < 0
        assert (turned | (gained <= 0.25 * np.array(ACCELERATION) * 0.05 + ROUNDING)).all()
        motion = after
    assert (np.abs(motion.velocity) <= 0.25 * np.array(SPEED) + ROUNDING).all()


@given(start=poses, steps=st.lists(st.tuples(targets, ticks_s, paces), min_size=1, max_size=12))
@settings(max_examples=50)
def test_it_equals_the_plainest_version_of_itself(limiter, start, steps):
    motion = Motion.at_rest(start)
    for target, dt, pace in steps:
        after = limiter.follow(motion, target, dt, pace)
        np.testing.assert_allclose(after.velocity, plain_velocity(motion, target, dt, pace), rtol=1e-7, atol=1e-7)
        motion = after


def plain_velocity(motion: Motion, target, dt: float, pace: float) -> list[float]:
    """The rule for one joint after the other, the braking speed by bisection."""
    windows, wanted = [], []
    for joint in range(3):
        p, v = float(motion.position[joint]), float(motion.velocity[joint])
        a, top = ACCELERATION[joint], pace * SPEED[joint]
        aim = min(max(target[joint], LOW[joint]), HIGH[joint])
        slowest = max(v - a * dt * (1 if v > 0 else pace), -plain_braking_speed(p - LOW[joint], dt, a))
        fastest = min(v + a * dt * (1 if v < 0 else pace), plain_braking_speed(HIGH[joint] - p, dt, a))

        def reachable(speed, slowest=slowest, fastest=fastest):
            return min(max(speed, slowest), fastest)

        own = min(max((aim - float(motion.aim[joint])) / dt, -top), top)
        rest = aim - p - own * dt
        low = reachable(max(-top, own - plain_braking_speed(-rest, dt, a)) if rest < 0 else -top)
        high = reachable(min(top, own + plain_braking_speed(rest, dt, a)) if rest > 0 else top)
        windows.append((low, high))
        wanted.append((aim - p) / dt)
    velocities = []
    for joint in range(3):
        share = 1.0
        for other in range(3):
            if GROUPS[other] == GROUPS[joint] and wanted[other] != 0:
                bound = windows[other][1] if wanted[other] > 0 else windows[other][0]
                share = min(share, max(bound / wanted[other], 0.0))
        low, high = windows[joint]
        velocities.append(min(max(share * wanted[joint], low), high))
    return velocities


def plain_braking_speed(room: float, dt: float, a: float) -> float:
    if room <= 0:
        return 0.0
    low, high = 0.0, room / dt
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * dt + middle**2 / (2 * a) <= room else (low, middle)
    return low
