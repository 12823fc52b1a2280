"""Where on the table things may start, and how they are moved out of there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Region:
    """A rectangle in two coordinates, and the room around it in which the arm still does its work."""

    low: tuple[float, float]
    high: tuple[float, float]
    room_below: tuple[float, float]
    """How far below `low` there is room, per coordinate."""
    room_above: tuple[float, float]

    def draw(self, rng: np.random.Generator, spatial: float) -> NDArray[np.float64]:
        """A point [2], uniform in the rectangle for `spatial` 0, outside it for 1, on the way there in between."""
        point = np.array([rng.uniform(low, high) for low, high in zip(self.low, self.high, strict=True)])
        return point + spatial * (self.outside(point) - point)

    def outside(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        """The point [2] outside the rectangle that lies in the direction of `point` [2] from its middle.

        The farther `point` is from the middle the farther out it goes, so that points that fill the rectangle evenly
        fill the room on each of its four sides evenly.
        """
        low, high = np.array(self.low), np.array(self.high)
        half = (high - low) / 2
        offset = (point - (low + high) / 2) / half
        axis = int(np.argmax(np.abs(offset)))
        radius = max(abs(offset[axis]), 1e-9)
        border = (low + high) / 2 + half * offset / radius
        room = self.room_above if offset[axis] > 0 else self.room_below
        border[axis] += np.sign(offset[axis]) * radius**2 * room[axis]
        return border
