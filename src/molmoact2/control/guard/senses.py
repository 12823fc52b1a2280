"""Are the joints and cameras alive, and does the arm go where it is told?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault, found
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Frame, Reading

Vector = NDArray[np.float64]


class Lasting:
    """For how long something has been so without a break."""

    def __init__(self) -> None:
        self.since_s = math.inf

    def duration_s(self, is_so: bool, now: float) -> float:
        """Seconds until now; negative where it is not so."""
        self.since_s = min(self.since_s, now) if is_so else math.inf
        return now - self.since_s


@dataclass(frozen=True, kw_only=True)
class Felt:
    """A reading that can be believed. All [joints]; what is not reported is not a number, and compares with nothing."""

    time_s: float
    state: Vector
    effort: Vector
    current_a: Vector
    temperature_c: Vector


def felt(reading: Reading | None, num_joints: int) -> Felt | None:
    """A reading, if every part of it has the right width and its joints are finite."""
    if reading is None:
        return None
    unknown = np.full(num_joints, np.nan)
    parts = (reading.state, reading.effort, reading.current_a, reading.temperature_c)
    values = [unknown if part is None else np.asarray(part, dtype=np.float64) for part in parts]
    if any(value.shape != (num_joints,) for value in values) or not np.isfinite(values[0]).all():
        return None
    state, effort, current_a, temperature_c = values
    return Felt(time_s=reading.time_s, state=state, effort=effort, current_a=current_a, temperature_c=temperature_c)


class Body:
    """Watches the joints: their readings, whether they follow, how hard they work and how hot they are."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self.is_gripper = np.array(limits.closing) != 0
        self.tracking_error = np.array(limits.tracking_error)
        self.travel = np.array(limits.travel)
        self.far, self.frozen = Lasting(), Lasting()
        self.strained, self.overfed = Lasting(), Lasting()
        self.last_state = np.full(len(limits.names), np.nan)
        self.commanded_at_change = self.last_state

    def check(self, body: Felt | None, commanded: Vector | None, now: float) -> Iterator[Fault]:
        """Findings of one tick; `commanded` [joints] went to the motors before, None where nothing did."""
        if body is None:
            message = f"The joints cannot be read, or not {len(self.limits.names)} finite numbers of each kind."
            yield Fault(kind="reading", message=message)
            return
        age_s, allowed_s = now - body.time_s, self.limits.stale_reading_s
        message = f"The joints were read {age_s:.2f} s ago, allowed {allowed_s:g} s."
        yield from found(not -allowed_s <= age_s <= allowed_s, "reading", message)
        if commanded is not None:
            yield from self.check_tracking(body.state, commanded, now)
            yield from self.check_frozen(body.state, commanded, now)
        strained_s = self.check_load(self.strained, body.effort, self.limits.effort, "of its largest torque", now)
        overfed_s = self.check_load(self.overfed, body.current_a, self.limits.current_a, "A", now)
        yield from (*strained_s, *overfed_s)
        yield from self.check_temperature(body.temperature_c)

    def check_tracking(self, state: Vector, commanded: Vector, now: float) -> tuple[Fault, ...]:
        """The arm is not where it was told to be: it met something, or lost its strength."""
        error = np.abs(state - commanded)
        lasted_s = self.far.duration_s(bool((error > self.tracking_error).any()), now)
        worst = int((error / self.tracking_error).argmax())
        message = (
            f"{self.limits.named(worst, state[worst])} is {error[worst]:.3g} away from the commanded "
            f"{commanded[worst]:.4g} for {lasted_s:.1f} s; allowed {self.tracking_error[worst]:.3g}."
        )
        return found(lasted_s >= self.limits.tracking_s, "tracking", message)

    def check_frozen(self, state: Vector, commanded: Vector, now: float) -> tuple[Fault, ...]:
        """The joints read exactly the same although they were told to move."""
        if not np.array_equal(state, self.last_state):
            self.last_state, self.commanded_at_change = state, commanded
        told = np.abs(commanded - self.commanded_at_change)
        lasted_s = self.frozen.duration_s(bool((told > self.travel).any()), now)
        worst = int((told / self.travel).argmax())
        where = self.limits.named(worst, state[worst])
        message = f"No joint reading has changed although {where} was told to move by {told[worst]:.3g}."
        return found(lasted_s >= self.limits.frozen_state_s, "frozen joints", message)

    def check_load(self, lasting: Lasting, values: Vector, largest: float, unit: str, now: float) -> tuple[Fault, ...]:
        """A motor pushes too hard for too long. Grippers are meant to."""
        load = np.nan_to_num(np.where(self.is_gripper, 0.0, np.abs(values)), nan=0.0)
        worst = int(load.argmax())
        lasted_s = lasting.duration_s(bool(load[worst] > largest), now)
        working = f"{self.limits.names[worst]} works with {load[worst]:.2f} {unit}"
        message = f"{working} for {lasted_s:.1f} s, allowed {largest:.2f}."
        return found(lasted_s >= self.limits.overload_s, "overload", message)

    def check_temperature(self, degrees: Vector) -> tuple[Fault, ...]:
        """A motor is warm, or too hot."""
        hottest = float(np.fmax.reduce(degrees))
        message = f"The hottest motor has {hottest:.0f} °C; the arm rests from {self.limits.hot_c:g} °C on."
        is_hot = hottest >= self.limits.hot_c
        return (*found(is_hot, "hot", message), *found(self.limits.warm_c <= hottest and not is_hot, "warm", message))


@dataclass(kw_only=True)
class View:
    """What one camera showed, and what has happened since it last changed."""

    frame: Frame
    num_same: int
    state: Vector
    """Measured joints when the image changed."""


class Eyes:
    """Watches the cameras: images that are old, or that do not change although the arm moves."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self.travel = np.array(limits.travel)
        self.views: dict[str, View] = {}

    def check(self, frames: Mapping[str, Frame], state: Vector | None, now: float) -> Iterator[Fault]:
        """Findings of one tick; `state` [joints] as measured."""
        known = {name: view.frame for name, view in self.views.items()}
        for name, frame in (known | dict(frames)).items():
            age_s, allowed_s = now - frame.time_s, self.limits.stale_frame_s
            message = f"The newest image of camera {name} is {age_s:.2f} s old, allowed {allowed_s:g} s."
            yield from found(not age_s <= allowed_s, "camera", message)
            if state is not None:
                yield from self.check_frozen(name, frame, state)

    def check_frozen(self, name: str, frame: Frame, state: Vector) -> Iterator[Fault]:
        """New images that are bit for bit the old one, while the arm moves."""
        view = self.views.get(name)
        if view is None or (frame.time_s != view.frame.time_s and not same_image(frame, view.frame)):
            self.views[name] = View(frame=frame, num_same=0, state=state)
            return
        if frame.time_s != view.frame.time_s:
            view.frame, view.num_same = frame, view.num_same + 1
        moved = bool((np.abs(state - view.state) > self.travel).any())
        message = f"Camera {name} has shown exactly the same image {view.num_same + 1} times while the arm moved."
        yield from found(moved and view.num_same >= self.limits.frozen_frames, "frozen camera", message)


def same_image(one: Frame, other: Frame) -> bool:
    """Whether two images are equal in every pixel."""
    return one.image is other.image or np.array_equal(one.image, other.image)
