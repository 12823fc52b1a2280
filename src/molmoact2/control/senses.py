"""Signs that a robot does not sense what it seems to: pictures or joints that stand still, cameras that are swapped.

A policy cannot tell. A frozen picture is a perfectly good picture, and what follows from it is a perfectly smooth plan,
so these signs are looked for where pictures and joints meet over time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.robot import Frame, Reading
from molmoact2.embodiments import Embodiment
from molmoact2.types import Image

COARSENESS = 4
"""Every so many pixels of a picture are compared."""
UNIT_TRAVEL = {"deg": 8.0, "rad": 0.14, "m": 0.02, "percent": 15.0, "fraction": 0.15, "unknown": np.inf}
"""Unit -> how far a dimension has to move for a picture or a reading that has not changed at all to be a wonder."""


@dataclass(frozen=True, kw_only=True)
class SenseLimits:
    """How long a robot may sense the same, or nothing new."""

    picture_age_s: float = 1.0
    """Of the newest frame of any camera."""
    still_s: float = 0.5
    """For which all joints read exactly the same although they were told to move."""
    swap_ratio: float = 0.5
    """A picture that differs less than this share as much from another camera's last picture as from its own, while the
    other one is as close to its, has changed places with it."""


class Senses:
    """Remembers what a robot sensed; one per episode."""

    def __init__(self, embodiment: Embodiment, limits: SenseLimits | None = None) -> None:
        self.embodiment = embodiment
        self.limits = limits or SenseLimits()
        self.travel = np.array([UNIT_TRAVEL[unit] for unit in embodiment.action_units])
        self.pictures: dict[str, tuple[Image, NDArray[np.float32]]] = {}
        """Camera -> its last picture, and the joints when that picture was first seen."""
        self.still: Reading | None = None
        """The first of the readings that are all the same."""

    def looked(self, reading: Reading, frames: Mapping[str, Frame]) -> str | None:
        """What is wrong with the pictures that came with a reading; None where nothing is known to be."""
        wrong = self._missing(frames) or self._old(reading, frames) or self._swapped(frames)
        if wrong is not None:
            return wrong
        frozen = [name for name, frame in frames.items() if self._is_frozen(name, frame.image, reading.state)]
        for name in frozen:
            return f"the picture of camera {name!r} has not changed at all while the arm moved: it is frozen"
        return None

    def felt(self, reading: Reading, commanded: NDArray[np.float32] | None) -> str | None:
        """What is wrong with the joints, given where they were last told to go (None: nowhere)."""
        before = self.still
        if before is None or commanded is None or not np.array_equal(before.state, reading.state):
            self.still = reading
            return None
        still_s, missing = reading.time_s - before.time_s, np.abs(commanded - reading.state)
        if still_s < self.limits.still_s or not (missing > self.travel).any():
            return None
        name = self.embodiment.action_names[int(np.argmax(missing / self.travel))]
        return (
            f"the joints have read exactly the same for {still_s:.1f} s although {name} was told to move by "
            f"{missing.max():.1f}: the reading is frozen, or the motors are off"
        )

    def _missing(self, frames: Mapping[str, Frame]) -> str | None:
        missing = [name for name in self.embodiment.cameras if name not in frames]
        if not frames or missing:
            return f"there is no picture of camera {missing[0]!r}" if missing else "there is no picture of any camera"
        return None

    def _old(self, reading: Reading, frames: Mapping[str, Frame]) -> str | None:
        ages = {name: reading.time_s - frame.time_s for name, frame in frames.items()}
        oldest = max(ages, key=lambda name: ages[name])
        is_old = ages[oldest] > self.limits.picture_age_s
        return f"the newest picture of camera {oldest!r} is {ages[oldest]:.1f} s old" if is_old else None

    def _swapped(self, frames: Mapping[str, Frame]) -> str | None:
        """Two cameras whose pictures each look like what the other one saw last."""
        for one in self.pictures.keys() & frames.keys():
            for other in self.pictures.keys() & frames.keys() - {one}:
                crossed = max(self._distance(frames, one, other), self._distance(frames, other, one))
                straight = min(self._distance(frames, one, one), self._distance(frames, other, other))
                if crossed < self.limits.swap_ratio * straight:
                    first, second = sorted((one, other))
                    return f"cameras {first!r} and {second!r} show what the other one showed before: they are swapped"
        return None

    def _distance(self, frames: Mapping[str, Frame], now: str, before: str) -> float:
        """Mean difference in grey levels between a camera's picture now and one's last; infinite for other sizes."""
        image, last = frames[now].image, self.pictures[before][0]
        if image.shape != last.shape:
            return float("inf")
        pair = (picture[::COARSENESS, ::COARSENESS].astype(np.float32) for picture in (image, last))
        return float(np.abs(next(pair) - next(pair)).mean())

    def _is_frozen(self, name: str, image: Image, state: NDArray[np.float32]) -> bool:
        """Whether a camera has shown exactly this picture while the arm moved; remembers the picture."""
        last, first_seen = self.pictures.get(name, (image, state))
        is_same = np.array_equal(last, image)
        self.pictures[name] = image, (first_seen if is_same else state)
        return is_same and bool((np.abs(state - first_seen) > self.travel).any())
