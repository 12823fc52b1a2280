"""The table of robots agrees with itself, and knows the names that data give them."""

import pytest

from molmoact2.embodiments import EMBODIMENTS, ROBOT_TYPES, SO_JOINTS, YAM_JOINTS

GRIPPERS = {"percent", "fraction"}


@pytest.mark.parametrize("robot", EMBODIMENTS.values(), ids=lambda robot: robot.tag)
def test_lists_are_of_one_length(robot):
    assert len(robot.action_units) == len(robot.action_names)
    for limits, names in ((robot.action_limits, robot.action_names), (robot.state_limits, robot.state_names)):
        assert limits is None or (len(limits) == len(names) and all(low < high for low, high in limits))
    assert len(robot.camera_roles) in (0, len(robot.cameras))
    assert set(robot.camera_roles) <= {"scene", "wrist"}
    assert 1 <= robot.n_action_steps <= robot.action_horizon


@pytest.mark.parametrize("robot", EMBODIMENTS.values(), ids=lambda robot: robot.tag)
def test_grippers_are_where_their_units_say(robot):
    for name, unit in zip(robot.action_names, robot.action_units, strict=True):
        assert ("gripper" in name) == (unit in GRIPPERS)
    if robot.gripper_range is not None:
        closed, opened = robot.gripper_range
        assert closed != opened
        assert robot.normalize_gripper == (max(abs(closed), abs(opened)) > 1), "what is passed through is in [-1, 1]"


@pytest.mark.parametrize("robot", EMBODIMENTS.values(), ids=lambda robot: robot.tag)
def test_canonical_names_stay(robot):
    assert robot.canonical(robot.action_names) == robot.action_names
    assert set(robot.name_aliases.values()) <= {*robot.action_names}
    assert robot.camera_aliases.keys() <= {*robot.cameras}
    others = [name for names in robot.camera_aliases.values() for name in names]
    assert len(set(others)) == len(others)
    assert not set(others) & set(robot.cameras)


@pytest.mark.parametrize("spelling", ["main_{}", "left_{}", "right_{}", "{}.pos", "main_{}.pos"])
def test_so100_names(spelling):
    robot = EMBODIMENTS["so100_so101_molmoact2"]
    assert robot.canonical([spelling.format(joint) for joint in SO_JOINTS]) == SO_JOINTS


@pytest.mark.parametrize("gripper", ["m7", "m9", "gripper", "gripper.pos"])
@pytest.mark.parametrize("joint", ["joint{}", "m{}"])
def test_yam_names(gripper, joint):
    names = [f"{side}_{name}" for side in ("left", "right")
             for name in (*(joint.format(i) for i in range(1, 7)), gripper)]  # fmt: skip
    assert EMBODIMENTS["yam_dual_molmoact2"].canonical(names) == YAM_JOINTS


def test_names_that_nobody_knows_stay():
    assert EMBODIMENTS["libero"].canonical(["x", "left_m1"]) == ("x", "left_m1")


def test_robot_types_mean_known_robots():
    assert set(ROBOT_TYPES.values()) == set(EMBODIMENTS)
    assert all(ROBOT_TYPES[tag] == tag for tag in EMBODIMENTS)


def test_embodiments_can_be_keys():
    assert len(set(EMBODIMENTS.values())) == len(EMBODIMENTS)
