"""Where the parts of an arm are: forward kinematics from a table of joint frames, in numpy.

A joint's frame sits at a fixed place in the frame of the joint before it, and turns about its own z axis.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEGREE = float(np.pi / 180)


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One turning joint."""

    position_m: tuple[float, float, float]
    """Of its frame, in the frame of the joint before it; the first in the base frame."""
    quaternion: tuple[float, float, float, float]
    """w first: how its frame is turned in the other at an angle of 0."""
    radians_per_unit: float = DEGREE
    zero_rad: float = 0.0
    """Angle at a value of 0 in robot units."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place on the arm that is watched."""

    name: str
    joint: int
    """Index of the last joint that moves it."""
    offset_m: tuple[float, float, float]
    """In that joint's frame."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One arm: joint i is carried by joint i - 1."""

    joints: tuple[Joint, ...]
    points: tuple[Point, ...]

    @cached_property
    def frames(self) -> NDArray[np.float64]:
        """[joints, 4, 4] of every joint at angle 0, in the one before."""
        frames = np.tile(np.eye(4), (len(self.joints), 1, 1))
        frames[:, :3, :3] = [rotation(joint.quaternion) for joint in self.joints]
        frames[:, :3, 3] = [joint.position_m for joint in self.joints]
        return frames

    def positions_m(self, poses: ArrayLike) -> NDArray[np.float64]:
        """Poses [n, joints] in robot units -> [n, points, 3] in the base frame."""
        scale = np.array([joint.radians_per_unit for joint in self.joints])
        zero = np.array([joint.zero_rad for joint in self.joints])
        angles = np.asarray(poses, dtype=np.float64) * scale + zero
        turns = np.tile(np.eye(4), (*angles.shape, 1, 1))
        turns[..., 0, 0] = turns[..., 1, 1] = np.cos(angles)
        turns[..., 1, 0] = np.sin(angles)
        turns[..., 0, 1] = -turns[..., 1, 0]
        places = [self.frames[0] @ turns[:, 0]]
        for frame, turn in zip(self.frames[1:], np.moveaxis(turns, 1, 0)[1:], strict=True):
            places.append(places[-1] @ frame @ turn)
        return np.stack([(places[p.joint] @ (*p.offset_m, 1.0))[:, :3] for p in self.points], axis=1)


def rotation(quaternion: ArrayLike) -> NDArray[np.float64]:
    """[3, 3] of a quaternion [4], w first, of any length but 0."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
    )


HALF_TURN = 0.7071067811865476

SO101_TABLETOP_CHAIN = Chain(
    joints=(
        Joint(position_m=(0.0388353, 0.0, 0.0624), quaternion=(0.0, 0.0, -1.0, 0.0)),
        Joint(position_m=(-0.0303992, -0.0182778, -0.0542), quaternion=(0.5, -0.5, -0.5, -0.5)),
        Joint(position_m=(-0.11257, -0.028, 0.0), quaternion=(HALF_TURN, 0.0, 0.0, HALF_TURN)),
        Joint(position_m=(-0.1349, 0.0052, 0.0), quaternion=(HALF_TURN, 0.0, 0.0, -HALF_TURN)),
        Joint(
            position_m=(0.0, -0.0611, 0.0181),
            quaternion=(0.017209108230571014, -0.017209108230571014, 0.7068973380865913, 0.7068973380865913),
        ),
        Joint(
            position_m=(0.0202, 0.0188, -0.0234),
            quaternion=(HALF_TURN, HALF_TURN, 0.0, 0.0),
            radians_per_unit=1.1 * DEGREE,
            zero_rad=-10 * DEGREE,
        ),
    ),
    points=(
        Point(name="fixed fingertip", joint=4, offset_m=(-0.0068, -0.0002, -0.1044)),
        Point(name="moving fingertip", joint=5, offset_m=(-0.0123, -0.0835, 0.0189)),
        Point(name="wrist", joint=3, offset_m=(0.0, -0.0611, 0.0)),
        Point(name="elbow", joint=2, offset_m=(0.0, 0.0, 0.0)),
    ),
)
"""The simulated SO-101: numbers of its MuJoCo model, degrees and the gripper's percent. The base frame is the robot's:
x forward, y to its left, z up, the table top at z = 0."""
