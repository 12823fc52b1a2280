"""How hard a gripper may close: its effort or current stands for the force that nobody measures."""

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault
from molmoact2.control.guard.senses import Felt
from molmoact2.control.limits import MotionLimits

Vector = NDArray[np.float64]


class Grip:
    """Keeps grippers from closing further on what they hold."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self.closing = np.array(limits.closing)
        self.loaded_s = np.zeros(len(limits.names))
        """For how long each motor has pushed that hard."""

    def eased(self, commanded: Vector, target: Vector, body: Felt, elapsed_s: float) -> tuple[Vector, list[Fault]]:
        """The target [joints], with grippers that push told to stay at `commanded` unless they are to open."""
        is_strained = np.abs(body.effort) >= self.limits.gripper_effort
        is_loaded = is_strained | (np.abs(body.current_a) >= self.limits.gripper_current_a)
        self.loaded_s = np.where(is_loaded, self.loaded_s + elapsed_s, 0.0)
        is_squeezing = (self.loaded_s > self.limits.grip_s) & (self.closing * (target - commanded) > 0)
        names = [self.limits.names[joint] for joint in np.flatnonzero(is_squeezing)]
        notes = [Fault(kind="grip", message=f"{name} holds something and closes no further.") for name in names]
        return np.where(is_squeezing, commanded, target), notes
