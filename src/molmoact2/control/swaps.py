"""Cameras that change places while the robot runs: a plug, a hub, a driver that counts anew.

The guard cannot tell from one picture which camera took it. But from one tick to the next a scene changes little, so a
picture that looks like what another camera showed a moment ago, and not like its own, has changed places with it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.robot import Frame

COARSENESS = 8
"""Every so many pixels of a picture are compared."""
RATIO = 0.5
"""How much closer a picture has to be to another camera's last one than to its own."""
NOTICEABLE = 2.0
"""Grey levels of mean difference below which two pictures count as the same."""


class Swaps:
    """Remembers the last picture of every camera."""

    def __init__(self, cameras: Sequence[str]) -> None:
        """`cameras` have to be there; none where any will do."""
        self.cameras = cameras
        self.last: dict[str, NDArray[np.float32]] = {}

    def check(self, frames: Mapping[str, Frame]) -> str | None:
        """What is wrong with the pictures of this tick; None where nothing is known to be."""
        missing = [name for name in self.cameras if name not in frames]
        if missing or not frames:
            return f"there is no picture of {f'camera {missing[0]!r}' if missing else 'any camera'}"
        now = {name: coarse(frame) for name, frame in frames.items()}
        pairs = combinations(sorted(self.last.keys() & now.keys()), 2)
        crossed = [f"{one!r} and {other!r}" for one, other in pairs if self.is_crossed(now, one, other)]
        # What is swapped stays what it is compared with: the doubt lasts until somebody has looked.
        self.last = self.last if crossed else now
        return f"cameras {crossed[0]} show what the other one showed before: they are swapped" if crossed else None

    def is_crossed(self, now: Mapping[str, NDArray[np.float32]], one: str, other: str) -> bool:
        """Whether two cameras both look like the other one before."""
        straight = min(distance(now[one], self.last[one]), distance(now[other], self.last[other]))
        crossed = max(distance(now[one], self.last[other]), distance(now[other], self.last[one]))
        return straight > NOTICEABLE and crossed < RATIO * straight


def coarse(frame: Frame) -> NDArray[np.float32]:
    """Some pixels of a picture."""
    return frame.image[::COARSENESS, ::COARSENESS].astype(np.float32)


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean difference in grey levels; infinite for pictures of other sizes."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else float("inf")
