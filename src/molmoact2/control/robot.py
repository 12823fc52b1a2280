"""What the control loop asks of a robot, and of time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import Embodiment
from molmoact2.types import Image


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a robot feels at one moment. Everything in the robot units and the order of its embodiment."""

    time_s: float
    """When the joints were read, on the robot's clock."""
    state: NDArray[np.float32]
    """[state_dim]"""
    effort: NDArray[np.float32] | None = None
    """[state_dim] share of the motor's largest torque, in [-1, 1]; None where the arm does not report it."""
    current_a: NDArray[np.float32] | None = None
    """[state_dim] amperes; None where the arm does not report it."""
    temperature_c: NDArray[np.float32] | None = None
    """[state_dim] degrees Celsius; None where the arm does not report it."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image of one camera."""

    image: Image
    """[height, width, 3] uint8 RGB."""
    time_s: float
    """When it was taken, on the robot's clock; when it arrived, where the camera does not say."""


class Robot(Protocol):
    """An arm, real or simulated, that follows absolute joint targets. It commands nothing by itself."""

    embodiment: Embodiment
    command_hz: float
    """How often it wants a target."""

    @property
    def clock(self) -> "Clock":
        """The clock of its readings and frames; simulated robots have simulated time, or not."""
        ...

    def read(self) -> Reading:
        """The joints now; fast. RobotError where they cannot be read."""
        ...

    def look(self) -> Mapping[str, Frame]:
        """The newest frame of every camera, named as the embodiment names them; does not wait for a new one."""
        ...

    def command(self, target: NDArray[np.float32], /) -> None:
        """Go to `target` [action_dim], robot units. Returns at once; the target stays until another is given."""
        ...

    def hold(self) -> None:
        """Keep the present pose with the motors on. Always possible, also after an error."""
        ...

    def close(self) -> None:
        """Let go of the devices; the arm holds its pose if it can."""
        ...


class RobotError(RuntimeError):
    """A device that does not answer; what the guard makes of it is that the arm holds."""


class Clock(Protocol):
    """Time of one robot."""

    def now(self) -> float:
        """Seconds, monotonic."""
        ...

    def sleep_until(self, time_s: float, /) -> None:
        """Return at `time_s`; at once where it has passed."""
        ...
