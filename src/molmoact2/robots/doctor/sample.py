"""What the doctor looks at: some seconds of a robot, live, simulated or recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.robot import Reading, Robot
from molmoact2.types import Image

Kind: TypeAlias = Literal["live", "simulated", "recorded"]
THUMBNAIL_ROWS = 48


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one camera showed."""

    name: str
    times_s: NDArray[np.float64]
    """[frames] when each was taken."""
    thumbnails: NDArray[np.uint8]
    """[frames, h, w, 3] every few pixels of each frame, untouched, so that a sensor's noise is still there."""
    picture: Image
    """[height, width, 3] the last frame."""
    sizes: tuple[tuple[int, int], ...]
    """Height and width, each that occurred."""
    ages_s: NDArray[np.float64]
    """[frames] how old each was when it was first seen; 0 in recordings."""

    @cached_property
    def changes(self) -> NDArray[np.float64]:
        """[frames - 1] mean change of a pixel from each frame to the next, in grey levels."""
        return np.array(
            [np.abs(b.astype(np.int16) - a).mean() for a, b in zip(self.thumbnails, self.thumbnails[1:], strict=False)]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Some seconds of one robot."""

    source: str
    """In words, for the report."""
    kind: Kind
    names: tuple[str, ...]
    """Of the state's dimensions, as the robot or the recording calls them."""
    times_s: NDArray[np.float64]
    """[readings]"""
    states: NDArray[np.float64]
    """[readings, state_dim] as the policy would be given them."""
    views: Mapping[str, View]
    """Camera -> what it showed, in the order in which they would be sent."""
    actions: NDArray[np.float64] | None = None
    """[readings, action_dim] what was commanded at each reading, in recordings."""
    hottest_c: float | None = None
    """Of all motors, where the arm reports it."""

    @property
    def seconds(self) -> float:
        """From the first reading to the last."""
        return float(self.times_s[-1] - self.times_s[0])

    @property
    def travel(self) -> NDArray[np.float64]:
        """[state_dim] how far each dimension went between its extremes."""
        return np.ptp(self.states, axis=0)


def thumbnail(image: Image) -> NDArray[np.uint8]:
    """Every few pixels of an image, so that it has about 48 rows."""
    step = max(1, image.shape[0] // THUMBNAIL_ROWS)
    return np.ascontiguousarray(image[::step, ::step])


class Watch:
    """Collects the frames of one camera: the last one whole, the others small."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thumbnails: list[NDArray[np.uint8]] = []
        self._times_s: list[float] = []
        self._ages_s: list[float] = []
        self._sizes: dict[tuple[int, int], None] = {}
        self._picture: Image | None = None

    def add(self, image: Image, time_s: float, *, age_s: float = 0.0) -> None:
        """Keep a frame, unless it is the one that was there before."""
        if self._times_s and time_s == self._times_s[-1]:
            return
        self._thumbnails.append(thumbnail(image))
        self._times_s.append(time_s)
        self._ages_s.append(age_s)
        self._sizes[(image.shape[0], image.shape[1])] = None
        self._picture = image

    def view(self) -> View:
        """What was collected; ValueError where that is nothing. Frames of another size than the last are left out of
        the thumbnails, and `sizes` tells that there were some."""
        if self._picture is None:
            raise ValueError(f"Camera {self._name!r} showed nothing.")
        shape = self._thumbnails[-1].shape
        return View(
            name=self._name,
            times_s=np.array(self._times_s),
            thumbnails=np.stack([small for small in self._thumbnails if small.shape == shape]),
            picture=self._picture,
            sizes=tuple(self._sizes),
            ages_s=np.array(self._ages_s),
        )


def sample(robot: Robot, seconds: float, *, source: str, kind: Kind = "live") -> Sample:
    """Watch a robot for some seconds, reading and looking as often as it wants commands; it is told nothing.

    RobotError where joints or cameras cannot be read.
    """
    clock, readings, watches = robot.clock, list[Reading](), dict[str, Watch]()
    start_s = clock.now()
    for tick in range(max(2, round(seconds * robot.command_hz))):
        clock.sleep_until(start_s + tick / robot.command_hz)
        readings.append(robot.read())
        for name, frame in robot.look().items():
            watch = watches.setdefault(name, Watch(name))
            watch.add(frame.image, frame.time_s, age_s=clock.now() - frame.time_s)
    temperatures = [reading.temperature_c.max() for reading in readings if reading.temperature_c is not None]
    return Sample(
        source=source,
        kind=kind,
        names=robot.embodiment.state_names,
        times_s=np.array([reading.time_s for reading in readings]),
        states=np.array([reading.state for reading in readings], np.float64),
        views={name: watch.view() for name, watch in watches.items()},
        hottest_c=float(max(temperatures)) if temperatures else None,
    )
