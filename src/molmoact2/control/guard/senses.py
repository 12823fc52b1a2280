"""Are the joints and cameras alive, and does the arm go where it is told?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.guard.faults import Fault
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Frame, Reading

Vector = NDArray[np.float64]


class Lasting:
    """For how long something has been so without a break."""

    def __init__(self) -> None:
        self.since_s: float | None = None

    def duration_s(self, is_so: bool, now: float) -> float:
        """Seconds until now; negative where it is not so."""
        self.since_s = min(now, now if self.since_s is None else self.since_s) if is_so else None
        return -1.0 if self.since_s is None else now - self.since_s


def measured(reading: Reading | None, num_joints: int) -> Vector | None:
    """[joints] of a reading that can be believed; None where something in it has another width or is not finite."""
    if reading is None or not np.isfinite(reading.state).all():
        return None
    parts = (reading.state, reading.effort, reading.current_a, reading.temperature_c)
    if any(part is not None and np.shape(part) != (num_joints,) for part in parts):
        return None
    return np.asarray(reading.state, dtype=np.float64)


class Body:
    """Watches the joints: their readings, whether they follow, how hard they work and how hot they are."""

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self.is_gripper = np.array(limits.closing) != 0
        self.tracking_error = np.array(limits.tracking_error)
        self.travel = np.array(limits.travel)
        self.far, self.frozen = Lasting(), Lasting()
        self.overloaded = {"effort": Lasting(), "current": Lasting()}
        self.last_state: Vector | None = None
        self.commanded_at_change: Vector | None = None

    def check(self, reading: Reading | None, commanded: Vector | None, now: float) -> Iterator[Fault]:
        """Findings of one tick; `commanded` [joints] went to the motors before, None where nothing did."""
        state = measured(reading, len(self.limits.names))
        if reading is None or state is None:
            yield Fault(kind="reading", message=f"The joints cannot be read: {described(reading)}.")
            return
        age_s = now - reading.time_s
        if not -self.limits.stale_reading_s <= age_s <= self.limits.stale_reading_s:
            message = f"The joints were read {age_s:.2f} s ago, allowed {self.limits.stale_reading_s:g} s."
            yield Fault(kind="reading", message=message)
        if commanded is not None:
            yield from self.check_tracking(state, commanded, now)
            yield from self.check_frozen(state, commanded, now)
        yield from self.check_load(reading, now)
        yield from self.check_temperature(reading)

    def check_tracking(self, state: Vector, commanded: Vector, now: float) -> Iterator[Fault]:
        """The arm is not where it was told to be: it met something, or lost its strength."""
        error = np.abs(state - commanded)
        lasted_s = self.far.duration_s(bool((error > self.tracking_error).any()), now)
        if lasted_s >= self.limits.tracking_s:
            worst = int((error / self.tracking_error).argmax())
            where = self.limits.named(worst, state[worst])
            yield Fault(
                kind="tracking",
                message=f"{where} is {error[worst]:.3g} away from the commanded {commanded[worst]:.4g} for "
                f"{lasted_s:.1f} s; allowed {self.tracking_error[worst]:.3g}.",
            )

    def check_frozen(self, state: Vector, commanded: Vector, now: float) -> Iterator[Fault]:
        """The joints read exactly the same although they were told to move."""
        if self.last_state is None or self.commanded_at_change is None or not np.array_equal(state, self.last_state):
            self.last_state, self.commanded_at_change = state, commanded
        told = np.abs(commanded - self.commanded_at_change)
        lasted_s = self.frozen.duration_s(bool((told > self.travel).any()), now)
        if lasted_s >= self.limits.frozen_state_s:
            worst = int((told / self.travel).argmax())
            where = self.limits.named(worst, state[worst])
            message = f"No joint reading has changed although {where} was told to move by {told[worst]:.3g}."
            yield Fault(kind="frozen joints", message=message)

    def check_load(self, reading: Reading, now: float) -> Iterator[Fault]:
        """A motor pushes too hard for too long."""
        loads = (
            ("effort", reading.effort, self.limits.effort, "of its largest torque"),
            ("current", reading.current_a, self.limits.current_a, "A"),
        )
        for name, values, largest, unit in loads:
            load = np.where(self.is_gripper, 0.0, np.abs(0.0 if values is None else values))
            lasted_s = self.overloaded[name].duration_s(bool((load > largest).any()), now)
            if lasted_s >= self.limits.overload_s:
                worst = int(load.argmax())
                yield Fault(
                    kind="overload",
                    message=f"{self.limits.names[worst]} works with {load[worst]:.2f} {unit} for {lasted_s:.1f} s, "
                    f"allowed {largest:.2f}.",
                )

    def check_temperature(self, reading: Reading) -> Iterator[Fault]:
        """A motor is warm, or too hot. A motor that does not say is not judged."""
        degrees = np.array([-np.inf] if reading.temperature_c is None else reading.temperature_c)
        hottest = float(np.fmax.reduce(degrees))
        if hottest >= self.limits.warm_c:
            kind = "hot" if hottest >= self.limits.hot_c else "warm"
            message = f"The hottest motor has {hottest:.0f} °C; the arm rests from {self.limits.hot_c:g} °C on."
            yield Fault(kind=kind, message=message)


def described(reading: Reading | None) -> str:
    """What is wrong with a reading that cannot be used."""
    if reading is None:
        return "there is no reading"
    parts = (reading.effort, reading.current_a, reading.temperature_c)
    shapes = ", ".join(str(np.shape(part)) for part in parts if part is not None)
    state = np.array2string(np.asarray(reading.state), precision=3, threshold=20)
    return f"shape {np.shape(reading.state)}, values {state}" + (f"; shapes of their loads {shapes}" if shapes else "")


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
            age_s = now - frame.time_s
            if not age_s <= self.limits.stale_frame_s:
                message = (
                    f"The newest image of camera {name} is {age_s:.2f} s old, allowed {self.limits.stale_frame_s:g} s."
                )
                yield Fault(kind="camera", message=message)
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
        if moved and view.num_same >= self.limits.frozen_frames:
            message = f"Camera {name} has shown exactly the same image {view.num_same + 1} times while the arm moved."
            yield Fault(kind="frozen camera", message=message)


def same_image(one: Frame, other: Frame) -> bool:
    """Whether two images are equal in every pixel."""
    return one.image is other.image or np.array_equal(one.image, other.image)
