"""The table of joint frames says where MuJoCo's own kinematics say the arm is."""

import numpy as np
import pytest

from molmoact2.control.kinematics import SO101_TABLETOP_CHAIN, Chain, Joint, Point, rotation
from molmoact2.control.limits import MotionLimits
from molmoact2.embodiments import SO101_TABLETOP

TURN_Z = (np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5))


def test_a_planar_arm_has_its_closed_form():
    chain = Chain(
        joints=(
            Joint(position_m=(0.0, 0.0, 0.5), quaternion=(1, 0, 0, 0)),
            Joint(position_m=(2.0, 0.0, 0.0), quaternion=(1, 0, 0, 0), radians_per_unit=1.0, zero_rad=0.25),
        ),
        points=(Point(name="tip", joint=1, offset_m=(1.0, 0.0, 0.0)), Point(name="elbow", joint=0, offset_m=(2, 0, 0))),
    )
    poses = np.array([[0.0, -0.25], [90.0, -0.25], [30.0, 0.5]])
    first, second = np.radians(poses[:, 0]), poses[:, 1] + 0.25
    elbow = np.stack([2 * np.cos(first), 2 * np.sin(first), np.full(3, 0.5)], axis=1)
    tip = elbow + np.stack([np.cos(first + second), np.sin(first + second), np.zeros(3)], axis=1)
    np.testing.assert_allclose(chain.positions_m(poses), np.stack([tip, elbow], axis=1), atol=1e-12)


def test_rotations_turn_as_they_say():
    np.testing.assert_allclose(rotation(TURN_Z) @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(rotation((2, 0, 0, 0)), np.eye(3))
    random = np.random.default_rng(0).normal(size=(20, 4))
    for quaternion in random:
        turn = rotation(quaternion)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1.0)


def test_the_simulated_arm_is_where_mujoco_says():
    pytest.importorskip("molmoact2.envs.headless", exc_type=ImportError)
    from molmoact2.envs.so101 import So101Env

    environment = So101Env()
    environment.reset(seed=0, task="pick")
    low, high = np.array(SO101_TABLETOP.action_limits).T
    poses = np.random.default_rng(0).uniform(low, high, size=(50, 6))
    bodies = ("shoulder", "upper_arm", "lower_arm", "wrist", "gripper", "moving_jaw_so101_v1")
    expected = []
    for pose in poses:
        environment.data.qpos[:6] = environment.to_radians(pose)
        environment.forward()
        expected.append(
            [
                environment.data.body(bodies[point.joint]).xpos
                + environment.data.body(bodies[point.joint]).xmat.reshape(3, 3) @ point.offset_m
                for point in SO101_TABLETOP_CHAIN.points
            ]
        )
    environment.close()
    np.testing.assert_allclose(SO101_TABLETOP_CHAIN.positions_m(poses), expected, atol=1e-6)


def test_the_watched_fingertips_are_the_lowest_points_of_the_fingers():
    """No part of the fingers that can touch the table is more than 1.5 mm beyond a watched point, gripper down."""
    mujoco = pytest.importorskip("molmoact2.envs.headless", exc_type=ImportError).mujoco
    from molmoact2.envs.so101_scene import build_model

    model = build_model()
    for point, geoms in ((0, ("fixed_finger", "fixed_jaw_pad")), (1, ("moving_jaw_pad",))):
        offset = np.array(SO101_TABLETOP_CHAIN.points[point].offset_m)
        axis = int(np.abs(offset).argmax())
        for name in geoms:
            geom = model.geom(name)
            turn = np.empty(9)
            mujoco.mju_quat2Mat(turn, geom.quat)
            reach = np.abs(turn.reshape(3, 3)) @ geom.size
            assert geom.pos[axis] - reach[axis] >= offset[axis] - 0.0015, name
    limits = MotionLimits.of(SO101_TABLETOP)
    assert limits.workspace is not None
    assert limits.workspace.chain is SO101_TABLETOP_CHAIN
