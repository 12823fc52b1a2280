"""The robot that pretends: closed forms of its motion, its limits, its pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmoact2.control.clock import VirtualClock
from molmoact2.control.robot import Robot
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.robots.dry_run import DryRun, DryRunSettings, limits_of, open_dry_run

JOINT_ROBOTS = ("so101_tabletop", "so100_so101_molmoact2", "yam_dual_molmoact2", "franka_droid")


def opened(**settings: object) -> tuple[DryRun, VirtualClock]:
    clock = VirtualClock()
    return open_dry_run(DryRunSettings(**settings), clock), clock


@pytest.mark.parametrize("tag", JOINT_ROBOTS)
def test_it_is_any_robot_that_follows_joints(tag: str):
    robot: Robot
    robot, clock = opened(embodiment=tag)
    limits = limits_of(EMBODIMENTS[tag])
    robot.command(limits[:, 1].astype(np.float32))
    clock.sleep_until(10.0)
    assert robot.read().state == pytest.approx(limits[:, 1].astype(np.float32))
    assert robot.read().time_s == 10.0
    assert robot.command_hz == EMBODIMENTS[tag].control_hz


@given(st.floats(0.01, 1.0), st.floats(0.0, 2.0), st.integers(1, 7))
def test_lag_is_an_exponential_however_often_it_is_asked(lag_s: float, after_s: float, looks: int):
    robot, clock = opened(lag_s=lag_s)
    start = robot.read().state.astype(np.float64)
    robot.command(np.full(6, 10, np.float32))
    for look in range(1, looks + 1):
        clock.sleep_until(after_s * look / looks)
        robot.read()
    expected = 10 + (start - 10) * np.exp(-after_s / lag_s)
    assert robot.read().state == pytest.approx(expected, abs=1e-4)


@given(arrays(np.float32, 6, elements=st.floats(-1000, 1000, width=32)))
def test_it_never_leaves_its_limits(target: np.ndarray):
    robot, clock = opened(lag_s=0.0)
    robot.command(target)
    clock.sleep_until(1.0)
    limits = limits_of(robot.embodiment)
    assert robot.read().state == pytest.approx(np.clip(target, *limits.T).astype(np.float32))


def test_hold_stops_where_it_is():
    robot, clock = opened(lag_s=0.5)
    robot.command(np.full(6, 90, np.float32))
    clock.sleep_until(0.2)
    robot.hold()
    held = robot.read().state
    clock.sleep_until(5.0)
    assert robot.read().state == pytest.approx(held)


def test_pictures_follow_the_shutter_and_the_joints():
    robot, clock = opened(camera_fps=10, image_width=64, image_height=48)
    clock.sleep_until(0.16)
    first = robot.look()
    assert list(first) == ["front", "wrist"]
    assert {frame.time_s for frame in first.values()} == {0.1}
    assert first["front"].image.shape == (48, 64, 3)
    assert first["front"].image.dtype == np.uint8
    assert not np.array_equal(first["front"].image, first["wrist"].image)
    clock.sleep_until(0.31)
    assert not np.array_equal(robot.look()["front"].image, first["front"].image), "a living camera changes"


def test_cameras_may_be_named():
    assert list(opened(embodiment="so100_so101_molmoact2", cameras=("a", "b", "c"))[0].look()) == ["a", "b", "c"]
    assert list(opened(embodiment="so100_so101_molmoact2")[0].look()) == ["front", "wrist"]


def test_it_may_start_elsewhere():
    start = np.array([1, 2, 3, 4, 5, 6], np.float32)
    assert DryRun(DryRunSettings(), VirtualClock(), start).read().state.tolist() == start.tolist()


@pytest.mark.parametrize("target", [np.zeros(5), np.full(6, np.nan)])
def test_command_that_is_none_is_refused(target: np.ndarray):
    robot, _ = opened()
    with pytest.raises(ValueError, match="6 finite numbers"):
        robot.command(target)


@pytest.mark.parametrize(("tag", "advice"), [("libero", "absolute joint targets"), ("so101", "Unknown embodiment")])
def test_robots_it_cannot_pretend(tag: str, advice: str):
    with pytest.raises(ValueError, match=advice):
        opened(embodiment=tag)
