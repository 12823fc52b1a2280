"""How hard a gripper may close: its effort or current stands for the force that nobody measures."""

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Reading

Vector = NDArray[np.float64]


class Grip:
    """Keeps grippers from closing further on what they hold."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self.closing = np.array(limits.closing)
        self.loaded_s = np.zeros(len(limits.names))
        """For how long each motor has pushed that hard."""

    def eased(
        self, commanded: Vector, target: Vector, reading: Reading | None, elapsed_s: float
    ) -> tuple[Vector, list[Fault]]:
        """The target [joints], with grippers that push told to stay at `commanded` unless they are to open."""
        effort = 0.0 if reading is None or reading.effort is None else np.abs(reading.effort)
        current_a = 0.0 if reading is None or reading.current_a is None else np.abs(reading.current_a)
        is_loaded = (effort >= self.limits.gripper_effort) | (current_a >= self.limits.gripper_current_a)
        self.loaded_s = np.where(is_loaded, self.loaded_s + elapsed_s, 0.0)
        is_squeezing = (self.loaded_s > self.limits.grip_s) & (self.closing * (target - commanded) > 0)
        names = [name for name, squeezes in zip(self.limits.names, is_squeezing, strict=True) if squeezes]
        notes = [Fault(kind="grip", message=f"{name} holds something and closes no further.") for name in names]
        return np.where(is_squeezing, commanded, target), notes
