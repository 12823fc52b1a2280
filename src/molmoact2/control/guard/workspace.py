"""Keeps the arm above the table and in its box, by where it would come to rest."""

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.limiter import Limiter, Motion
from molmoact2.control.limits import Workspace

Vector = NDArray[np.float64]
NUM_POSES = 5
"""Of a braking path that are looked at. A path is some centimetres long, and nearly straight."""


class Fence:
    """Judges motions by the poses that they pass while they brake."""

    def __init__(self, workspace: Workspace, limiter: Limiter) -> None:
        self.workspace = workspace
        self.limiter = limiter
        self.lowest_m, self.highest_m = np.array(workspace.lowest_m), np.array(workspace.highest_m)

    def outside_m(self, poses: Vector) -> Vector:
        """[poses] how far the worst point is outside the box, in metres; negative inside."""
        points = self.workspace.chain.positions_m(poses)
        return np.maximum(self.lowest_m - points, points - self.highest_m).max(axis=(1, 2))

    def allows(self, before: Motion, after: Motion) -> bool:
        """Whether the arm can go on like this: it could brake inside the box, or comes back from outside."""
        outside = self.outside_m(np.concatenate([before.position[None], self.limiter.stopping_path(after, NUM_POSES)]))
        return bool(outside[1:].max() <= max(0.0, outside[0]))

    def described(self, after: Motion) -> str:
        """Where a motion that is not allowed would end, and with which part of the arm."""
        path = self.limiter.stopping_path(after, NUM_POSES)
        points = self.workspace.chain.positions_m(path)
        outside = np.maximum(self.lowest_m - points, points - self.highest_m).max(axis=2)
        pose, point = np.unravel_index(outside.argmax(), outside.shape)
        x, y, z = 1000 * points[pose, point]
        name = self.workspace.chain.points[point].name
        return f"The {name} could not stop before x {x:.0f}, y {y:.0f}, z {z:.0f} mm, outside of the workspace"
