"""What is wrong with a target before anything has moved."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault, found, must_hold
from molmoact2.control.limiter import Limiter
from molmoact2.control.limits import MotionLimits

Vector = NDArray[np.float64]


class Targets:
    """Judges targets one by one: finite, of the right width, in range, and no jump."""

    def __init__(self, limits: MotionLimits, limiter: Limiter) -> None:
        self.limits = limits
        self.limiter = limiter
        self.beyond_range, self.jump = np.array(limits.beyond_range), np.array(limits.jump)
        self.last_target_s = math.inf

    def check(
        self, target: NDArray[np.floating] | None, last: Vector | None, state: Vector | None, now: float
    ) -> Iterator[Fault]:
        """Findings about a target; `last` [joints] is the one that was followed before, `state` is measured."""
        if target is None:
            waited_s = now - self.last_target_s
            message = f"Nothing has been planned for {waited_s:.1f} s: the arm holds."
            yield from found(waited_s >= self.limits.no_target_s, "no target", message)
            return
        self.last_target_s = now
        values = np.asarray(target, dtype=np.float64)
        num_joints = len(self.limits.names)
        if values.shape != (num_joints,) or not np.isfinite(values).all():
            shown = np.array2string(values, precision=2, threshold=8)
            message = f"The target is not {num_joints} finite numbers: shape {values.shape}, {shown}."
            yield Fault(kind="target", message=message)
            return
        beyond = self.check_range(values)
        yield from beyond
        if not must_hold(beyond):
            yield from self.check_jump(values, last, state)

    def check_range(self, target: Vector) -> tuple[Fault, ...]:
        """A target outside the joints' ranges: a little, and the end of the range is meant; or far."""
        beyond = np.maximum(self.limiter.lowest - target, target - self.limiter.highest)
        excess = beyond / self.beyond_range
        worst = int(excess.argmax())
        low, high = self.limits.ranges[worst]
        where = f"A target of {self.limits.named(worst, target[worst])} is {beyond[worst]:.3g} beyond its range"
        message = f"{where} {low:g} to {high:g}"
        is_little = 0 < excess[worst] <= 1
        return (
            *found(bool(is_little), "range", message + ": the arm goes to the end of the range."),
            *found(bool(excess[worst] > 1), "target", message + ": refused."),
        )

    def check_jump(self, target: Vector, last: Vector | None, state: Vector | None) -> tuple[Fault, ...]:
        """A target far from the last one, and from where the arm is; where neither is known, it is no jump."""
        known = [np.abs(target - pose) for pose in (last, state) if pose is not None]
        jump = np.min(known or [np.zeros_like(target)], axis=0)
        worst = int((jump / self.jump).argmax())
        where = f"{self.limits.named(worst, target[worst])} is a jump of {jump[worst]:.3g}"
        message = f"A target of {where}, allowed {self.jump[worst]:.3g}: refused."
        return found(bool(jump[worst] > self.jump[worst]), "jump", message)
