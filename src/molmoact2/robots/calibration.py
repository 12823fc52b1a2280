"""Units and frames: what an arm says against what a checkpoint means.

An SO-100 or SO-101 has known two calibrations. The present one of LeRobot has its zero in the middle of each joint's
range; the old one had it where the arm lies folded out flat, and counted the shoulder the other way. Data and
checkpoints of the old one are still about: `OLD_SO_FRAME` takes an arm of today there and back.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FRANKA_GRIPPER_WIDTH_M = 0.085
"""Between the fingers of the gripper of the DROID platform (Robotiq 2F-85) when it is open."""

Unit: TypeAlias = Literal["rad", "deg", "normalized"]
"""How joints are told; "normalized" is -100 at one end of a joint's calibrated range and 100 at the other."""


@dataclass(frozen=True, kw_only=True)
class JointFrame:
    """model = sign * arm + offset, for each joint: an arm's own angles against those a checkpoint knows."""

    signs: tuple[int, ...]
    """1 or -1 per joint."""
    offsets: tuple[float, ...]
    """Per joint, in the unit of the joint."""

    def __post_init__(self) -> None:
        if len(self.signs) != len(self.offsets) or not set(self.signs) <= {-1, 1}:
            raise ValueError(
                "A joint frame needs a sign, 1 or -1, and an offset for every joint; "
                f"got signs {self.signs} and offsets {self.offsets}."
            )

    def to_model(self, arm: ArrayLike) -> NDArray[np.float64]:
        """Angles [..., joints] of the arm as the checkpoint counts them."""
        return np.asarray(arm, np.float64) * self.signs + self.offsets

    def to_arm(self, model: ArrayLike) -> NDArray[np.float64]:
        """Angles [..., joints] of the checkpoint as the arm counts them: the inverse of `to_model`."""
        return (np.asarray(model, np.float64) - self.offsets) * self.signs


NEW_SO_FRAME = JointFrame(signs=(1,) * 6, offsets=(0.0,) * 6)
"""A checkpoint that learned from arms calibrated as they are today."""
OLD_SO_FRAME = JointFrame(signs=(1, -1, 1, 1, 1, 1), offsets=(0.0, 90.0, 90.0, 0.0, 0.0, 0.0))
"""A checkpoint that learned in the old calibration, as the released one for SO-100/101 did; degrees."""
SO_FRAMES = {"new": NEW_SO_FRAME, "old": OLD_SO_FRAME}
"""Calibration that a checkpoint's data had -> the frame of an arm that is calibrated today."""


def closed_from_width(width_m: ArrayLike, *, open_m: float = FRANKA_GRIPPER_WIDTH_M) -> NDArray[np.float64]:
    """How far a gripper is closed, 0 open and 1 closed as DROID counts, from the distance of its fingers in metres."""
    return 1.0 - np.asarray(width_m, np.float64) / open_m


def width_from_closed(closed: ArrayLike, *, open_m: float = FRANKA_GRIPPER_WIDTH_M) -> NDArray[np.float64]:
    """The distance of the fingers in metres from how far the gripper is closed: the inverse of `closed_from_width`."""
    return (1.0 - np.asarray(closed, np.float64)) * open_m


def possible_units(joints: ArrayLike) -> tuple[Unit, ...]:
    """The units that angles [..., joints], without a gripper, could be in, judged by the largest of them.

    No joint of these arms turns by more than 2 pi radians, and nothing normalised is beyond 100; small numbers fit all.
    """
    largest = float(np.max(np.abs(np.asarray(joints, np.float64)), initial=0.0))
    bounds: tuple[tuple[Unit, float], ...] = (("rad", 2 * np.pi), ("normalized", 100.0), ("deg", np.inf))
    return tuple(unit for unit, bound in bounds if largest <= bound)
