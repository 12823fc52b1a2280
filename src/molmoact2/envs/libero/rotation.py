"""Rotations as the simulator's users write them: a quaternion becomes an axis times an angle."""

import math

import numpy as np
from numpy.typing import NDArray


def axis_angle(quaternion_xyzw: NDArray[np.floating], *, fold: bool = False) -> NDArray[np.float64]:
    """[3] axis times angle in radians of a unit quaternion [4] (x, y, z, w); zeros without rotation.

    The angle is 2 arccos(w), from 0 to 2 pi: a quaternion and its negative are the same rotation and give different
    numbers. With `fold` both give that of the one with w >= 0, whose angle is at most pi. |w| beyond 1 counts as 1.
    """
    x, y, z, w = (-quaternion_xyzw if fold and quaternion_xyzw[3] < 0 else quaternion_xyzw).astype(np.float64)
    w = min(max(w, -1.0), 1.0)
    sine = math.sqrt(1.0 - w * w)
    if sine == 0.0:
        return np.zeros(3)
    return np.array((x, y, z)) * 2.0 * math.acos(w) / sine
