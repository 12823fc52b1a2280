# pyright: reportAttributeAccessIssue=false
"""Where the SO-101's joints must be for its fingers to be somewhere.

The arm has five joints, so a pinch point, a pointing direction and a turn about it can be reached together only where
the shoulder pan already faces the point. Damped least squares weighs the position most, so that far targets are
reached with a tilted gripper instead of being missed.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molmoact2.envs.headless import mujoco
from molmoact2.envs.so101_scene import PAN_AXIS_X_M

ARM_JOINTS = 5
JOINTS = 6
START_RAD = (0.0, -0.4, 0.3, 1.5, 0.0)
"""Elbow up, fingers down: every solution starts here, so that it depends on the target alone."""
DAMPING = 1e-3
ITERATIONS = 24
TOLERANCE_M = 2e-4


def azimuth_rad(position_m: ArrayLike) -> float:
    """Direction of a point about the shoulder's axis; 0 is straight ahead, positive is to the robot's left."""
    x, y = np.asarray(position_m)[:2]
    return math.atan2(y, x - PAN_AXIS_X_M)


def damped_least_squares(jacobian: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """The small change of the joints that removes most of `error`."""
    normal = jacobian @ jacobian.T + DAMPING**2 * np.eye(len(error))
    return jacobian.T @ np.linalg.solve(normal, error)


class Kinematics:
    """Inverse kinematics of one model, on a private copy of its state."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self.data = mujoco.MjData(model)
        self.site = model.site("pinch").id
        self.low, self.high = model.jnt_range[:ARM_JOINTS].T
        self.jacobian = np.zeros((2, 3, model.nv))

    def solve(
        self,
        pinch_m: ArrayLike,
        turn_rad: float = 0.0,
        offset_m: ArrayLike = (0.0, 0.0, 0.0),
        orientation_weight_m: float = 0.02,
    ) -> NDArray[np.float64]:
        """Joint angles [5] in radians that bring the pinch point to `pinch_m` [3] with the fingers pointing down.

        `turn_rad` turns the jaws' opening direction away from the arm's own radial direction. `offset_m` [3] moves the
        pinch point within the gripper's frame. `orientation_weight_m` is what a radian of tilt counts, in metres.
        """
        target = np.asarray(pinch_m, dtype=np.float64)
        joints = np.array(START_RAD)
        joints[0] = azimuth_rad(target)
        heading = joints[0] + turn_rad
        opening = np.array((math.cos(heading), math.sin(heading), 0.0))
        axes = np.stack([opening, np.cross((0.0, 0.0, 1.0), opening), (0.0, 0.0, 1.0)], axis=1)
        joints = np.clip(joints, self.low, self.high)
        for _ in range(ITERATIONS):
            error, jacobian = self.linearise(joints, target, axes, np.asarray(offset_m), orientation_weight_m)
            change = damped_least_squares(jacobian, error)
            stuck = ((joints <= self.low) & (change < 0)) | ((joints >= self.high) & (change > 0))
            if stuck.any():
                jacobian[:, stuck] = 0
                change = damped_least_squares(jacobian, error)
            joints = np.clip(joints + np.clip(change, -0.5, 0.5), self.low, self.high)
            if np.abs(change).max() < TOLERANCE_M:
                break
        return joints

    def update(self) -> None:
        """Place the links of the private copy where its joints say."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)

    def linearise(self, joints, target_m, axes, offset_m, weight_m):
        """Weighted error [6] of the pinch point's pose, and its Jacobian [6, 5]."""
        data = self.data
        data.qpos[:ARM_JOINTS] = joints
        self.update()
        rotation = data.site_xmat[self.site].reshape(3, 3)
        point = data.site_xpos[self.site] + rotation @ offset_m
        body = self.model.site_bodyid[self.site]
        mujoco.mj_jac(self.model, data, self.jacobian[0], self.jacobian[1], point, body)
        tilt = 0.5 * np.cross(rotation, axes, axis=0).sum(axis=1)
        error = np.concatenate([target_m - point, weight_m * tilt])
        jacobian = self.jacobian[:, :, :ARM_JOINTS].copy()
        jacobian[1] *= weight_m
        return error, jacobian.reshape(6, ARM_JOINTS)
