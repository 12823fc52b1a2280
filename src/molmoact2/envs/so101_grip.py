"""How the SO-101's two fingers meet a cube.

The pinch point is where a 30 mm cube is held. In the gripper's frame the fingers point along -z and the jaws open along
x, the fixed finger at the negative side. The pads are parallel when they are 40 mm apart.
"""

import numpy as np
from numpy.typing import NDArray

OPEN_RAD, CLOSED_RAD = 0.65, 0.10
"""Gripper joint when open for a cube, and when closed on one or empty."""
PARALLEL_RAD, PARALLEL_GAP_M = 0.46, 0.040
RAD_PER_M = 13.0
FIXED_PAD_M = -0.015
"""Along the jaws' opening, from the pinch point to the face of the fixed finger's pad."""


def contact_rad(half_m: float) -> float:
    """Gripper joint at which both pads touch a cube of half edge `half_m`."""
    return PARALLEL_RAD + RAD_PER_M * (2 * half_m - PARALLEL_GAP_M)


def cube_offset_m(half_m: float, clearance_m: float = 0.0) -> NDArray[np.float64]:
    """[3] centre of a cube beside the fixed finger, from the pinch point in the gripper's frame."""
    return np.array((FIXED_PAD_M + half_m + clearance_m, 0.0, 0.0))
