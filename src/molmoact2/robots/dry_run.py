"""A robot that only pretends: no hardware, no simulator. For trying out a server, for documentation and for tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import WallClock
from molmoact2.control.robot import Clock, Frame, Reading
from molmoact2.embodiments import EMBODIMENTS, Embodiment
from molmoact2.registry import unknown
from molmoact2.robots.vendor import checked_target
from molmoact2.types import Image

UNIT_RANGES = {"deg": (-180.0, 180.0), "rad": (-math.pi, math.pi), "percent": (0.0, 100.0), "fraction": (0.0, 1.0)}
"""Where a joint may be of which no limits are known."""
USUAL_CAMERAS = ("front", "wrist")
"""Of an embodiment without cameras of its own."""


@dataclass(frozen=True, kw_only=True)
class DryRunSettings:
    """What is pretended."""

    embodiment: str = "so101_tabletop"
    """Tag of the robot; one whose actions are absolute joints."""
    cameras: tuple[str, ...] = ()
    """Names; those of the embodiment by default."""
    image_width: int = 320
    image_height: int = 240
    camera_fps: float = 30.0
    lag_s: float = 0.05
    """Time constant with which joints approach a target; 0 is there at once."""
    command_hz: float = 0.0
    """How often it wants a target; 0 is the embodiment's own rate."""


class DryRun:
    """Joints that approach their target and stop at their limits, and cameras that see a dot move with them."""

    def __init__(self, settings: DryRunSettings, clock: Clock, start: NDArray[np.float32] | None = None) -> None:
        """`start` [state_dim] is where it stands; the middle of its limits by default."""
        self.embodiment = embodiment_of(settings)
        self.command_hz = settings.command_hz or self.embodiment.control_hz
        self._settings, self._clock = settings, clock
        self._cameras = settings.cameras or self.embodiment.cameras or USUAL_CAMERAS
        self._limits = limits_of(self.embodiment)
        stand = self._limits.mean(axis=1) if start is None else checked_target(start, len(self._limits))
        self._state = np.clip(stand, *self._limits.T)
        self._target, self._time_s = self._state.copy(), clock.now()

    @property
    def clock(self) -> Clock:
        """The one it was opened with."""
        return self._clock

    def read(self) -> Reading:
        """Where the joints have got to."""
        return Reading(time_s=self._advance(), state=self._state.astype(np.float32))

    def look(self) -> Mapping[str, Frame]:
        """A picture of each camera, taken at the last tick of its shutter."""
        now = self._advance()
        shutter_s = math.floor(now * self._settings.camera_fps) / self._settings.camera_fps
        share = (self._state - self._limits[:, 0]) / np.ptp(self._limits, axis=1)
        return {
            name: Frame(image=self._picture(number, share, shutter_s), time_s=shutter_s)
            for number, name in enumerate(self._cameras)
        }

    def command(self, target: NDArray[np.float32], /) -> None:
        """Approach `target` [action_dim] from now on, as far as the limits allow."""
        checked = checked_target(target, len(self._limits))
        self._advance()
        self._target = np.clip(checked, *self._limits.T)

    def hold(self) -> None:
        """Stay where the joints are."""
        self._advance()
        self._target = self._state.copy()

    def close(self) -> None:
        """Nothing is open."""

    def _advance(self) -> float:
        """Move the joints to the present; the time it is."""
        now, lag = self._clock.now(), self._settings.lag_s
        left = math.exp(-(now - self._time_s) / lag) if lag > 0 else 0.0
        self._state = self._target + (self._state - self._target) * left
        self._time_s = now
        return now

    def _picture(self, number: int, share: NDArray[np.float64], time_s: float) -> Image:
        """[height, width, 3] a slope in a direction of the camera's own, and a dot where the joints point."""
        height, width = self._settings.image_height, self._settings.image_width
        rows, columns = np.ogrid[0:height, 0:width]
        slopes = (160 * rows // height, 160 * columns // width)
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0], image[..., 1], image[..., 2] = 60 + slopes[number % 2], 60 + slopes[1 - number % 2], 20 * number
        at = np.roll(share, number)[:2] * (height - 1, width - 1)
        image[(rows - at[0]) ** 2 + (columns - at[1]) ** 2 < (height / 12) ** 2] = 255
        image[0] = round(time_s * self._settings.camera_fps) * 37 % 256
        return image


def open_dry_run(settings: DryRunSettings, clock: Clock | None = None) -> DryRun:
    """A robot that pretends, on the computer's clock unless another is given."""
    return DryRun(settings, clock or WallClock())


def embodiment_of(settings: DryRunSettings) -> Embodiment:
    """The embodiment that is pretended; ValueError for one whose actions are not absolute joints."""
    if settings.embodiment not in EMBODIMENTS:
        raise unknown("embodiment", settings.embodiment, EMBODIMENTS)
    embodiment = EMBODIMENTS[settings.embodiment]
    if embodiment.state_names != embodiment.action_names or not embodiment.control_mode.startswith("absolute joint"):
        raise ValueError(
            f"A dry run follows absolute joint targets; {embodiment.tag} has {embodiment.control_mode!r}. "
            "Choose another embodiment, for instance so101_tabletop."
        )
    return embodiment


def limits_of(embodiment: Embodiment) -> NDArray[np.float64]:
    """[state_dim, 2] lowest and highest value of each joint, from the embodiment or else from its unit."""
    known = embodiment.action_limits or embodiment.state_limits
    return np.array(known or [UNIT_RANGES[unit] for unit in embodiment.action_units], np.float64)
