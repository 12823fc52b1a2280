# pyright: reportAttributeAccessIssue=false
"""Random arm poses for pictures: nothing moves, the arm is simply put somewhere.

For questions about single images ("point to the blue cube") episodes are a slow source of varied scenes.
"""

import math

import numpy as np

from molmoact2.envs.headless import mujoco
from molmoact2.envs.so101_grip import CLOSED_RAD, OPEN_RAD, contact_rad, cube_offset_m
from molmoact2.envs.so101_kinematics import ARM_JOINTS, Kinematics
from molmoact2.envs.so101_layout import AZIMUTH_RAD, Layout
from molmoact2.envs.so101_scene import PAN_AXIS_X_M

ANYWHERE, ABOVE_CUBE, HOLDING = 0.45, 0.35, 0.20
"""How often the gripper is anywhere, over a cube, or holding one."""
REACH_M, HEIGHT_M = (0.10, 0.25), (0.02, 0.17)
ABOVE_M = (0.020, 0.085)
SIDEWAYS_M = 0.025
TURN_RAD = 0.5
JITTER_RAD = 0.08
CLEAR_HEIGHT_M, CLEAR_DISTANCE_M = 0.055, 0.045
"""The fingers stay this high where a cube is this near."""


def scatter(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    layout: Layout,
    kinematics: Kinematics,
    rng: np.random.Generator,
) -> None:
    """Put the arm in a random plausible pose: anywhere above the table, over a cube, or with a cube in its jaws."""
    colour = str(rng.choice(sorted(layout.cubes)))
    manner = rng.choice(3, p=(ANYWHERE, ABOVE_CUBE, HOLDING))
    gripper_rad = rng.uniform(CLOSED_RAD, OPEN_RAD + 0.1)
    reach, azimuth = rng.uniform(*REACH_M), rng.uniform(-1.2, 1.2) * AZIMUTH_RAD
    point = np.array((PAN_AXIS_X_M + reach * math.cos(azimuth), reach * math.sin(azimuth), rng.uniform(*HEIGHT_M)))
    if manner == 1:
        point = data.body(colour).xpos + rng.uniform((-SIDEWAYS_M, -SIDEWAYS_M, 0), (SIDEWAYS_M, SIDEWAYS_M, 0))
        point[2] += rng.uniform(*ABOVE_M)
    elif manner == 2:
        gripper_rad = contact_rad(layout.cubes[colour].half_m)
    blocking = [data.body(c).xpos for c in layout.cubes if manner == 0 or c != colour]
    if any(np.linalg.norm((cube - point)[:2]) < CLEAR_DISTANCE_M for cube in blocking):
        point[2] = max(point[2], CLEAR_HEIGHT_M)
    joints = kinematics.solve(point, rng.uniform(-TURN_RAD, TURN_RAD), orientation_weight_m=0.01)
    if manner == 0:
        joints = joints + rng.uniform(-JITTER_RAD, JITTER_RAD, ARM_JOINTS)
    data.qvel[:] = 0
    data.qpos[: ARM_JOINTS + 1] = np.append(joints, gripper_rad)
    data.ctrl[:] = data.qpos[: ARM_JOINTS + 1]
    mujoco.mj_kinematics(model, data)
    if manner == 2:
        put_in_jaws(model, data, colour, layout.cubes[colour].half_m)
    mujoco.mj_forward(model, data)


def put_in_jaws(model: mujoco.MjModel, data: mujoco.MjData, colour: str, half_m: float) -> None:
    """Place a cube between the fingers."""
    pinch = data.site("pinch")
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, pinch.xmat)
    position = pinch.xpos + pinch.xmat.reshape(3, 3) @ cube_offset_m(half_m)
    address = model.joint(colour).qposadr[0]
    data.qpos[address : address + 7] = np.concatenate([position, quaternion])
