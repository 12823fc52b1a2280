"""How a joint may move: speed, acceleration and range, kept at every tick, whatever the target does.

The commanded pose moves towards the target as fast as the bounds allow, and never so fast that it could not stop
inside the range any more. In discrete time, with a tick of `dt` and the largest acceleration `a`:

    velocity' in [velocity - a dt, velocity + a dt]              the acceleration bound
    position' = position + velocity' dt
    velocity' dt + velocity'² / 2a <= room                       it can still stop within the room that is left

Braking at `a` in ticks of any length covers at most velocity² / 2a, because every tick brakes before it moves. So if
the last line held at one tick, braking makes it hold at the next: there is always a way out that keeps all bounds.

A target that keeps the bounds itself is followed exactly, without lag. For that its own speed is taken into account:
the limiter brakes relative to the target, and a target that stands still is approached without passing it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = NDArray[np.float64]
TINY = 1e-12
"""A speed below this is none."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What is commanded at one tick. All [joints], in the units of the joints and per second."""

    position: Vector
    velocity: Vector
    """That led to `position`, during the last tick."""
    aim: Vector
    """The target of the last tick; its change is the target's speed."""

    @classmethod
    def at_rest(cls, pose: ArrayLike) -> "Motion":
        """Standing still at `pose` [joints]."""
        position = np.array(pose, dtype=np.float64)
        return cls(position=position, velocity=np.zeros_like(position), aim=position)


class Limiter:
    """Bounds on the commanded motion of some joints.

    Args:
        lowest, highest: [joints] range of positions.
        speed: [joints] largest speed, per second.
        acceleration: [joints] largest change of the speed, per second squared.
        groups: [joints] joints of the same number are slowed together, so that they keep their direction; None means
            that all joints are one group.
        longest_tick_s: the part of a longer tick in which nothing is commanded: the joints come to rest meanwhile.
    """

    def __init__(
        self,
        *,
        lowest: ArrayLike,
        highest: ArrayLike,
        speed: ArrayLike,
        acceleration: ArrayLike,
        groups: Sequence[int] | None = None,
        longest_tick_s: float = 0.2,
    ) -> None:
        # Rounded inwards to what a command can hold, so that a rounded command is still in range.
        self.lowest, self.highest = rounded_up(lowest), -rounded_up(np.negative(highest))
        self.speed, self.acceleration = np.asarray(speed, dtype=np.float64), np.asarray(acceleration, dtype=np.float64)
        self.groups = np.asarray(groups if groups is not None else np.zeros(len(self.speed)), dtype=np.intp)
        self.num_groups = int(self.groups.max()) + 1
        self.longest_tick_s = longest_tick_s

    def follow(self, motion: Motion, target: ArrayLike, elapsed_s: float, pace: float = 1.0) -> Motion:
        """The motion one tick later, towards `target` [joints].

        Args:
            elapsed_s: positive, since `motion`.
            pace: share of the speed, and of the acceleration of speeding up; braking is never weakened.
        """
        motion, dt = self.rested(motion, elapsed_s)
        aim = np.clip(target, self.lowest, self.highest)
        slowest, fastest = self.reachable(motion, dt, pace)
        top = pace * self.speed
        own = np.clip((aim - motion.aim) / elapsed_s, -top, top)
        rest = aim - motion.position - own * dt
        low = np.where(rest < 0, np.maximum(-top, own - self.braking_speed(-rest, dt)), -top)
        high = np.where(rest > 0, np.minimum(top, own + self.braking_speed(rest, dt)), top)
        low, high = np.clip(low, slowest, fastest), np.clip(high, slowest, fastest)
        wanted = (aim - motion.position) / dt
        velocity = np.clip(self.share(wanted, low, high) * wanted, low, high)
        return Motion(position=motion.position + velocity * dt, velocity=velocity, aim=aim)

    def brake(self, motion: Motion, elapsed_s: float) -> Motion:
        """The motion one tick later when it has to come to rest as soon as it may."""
        motion, dt = self.rested(motion, elapsed_s)
        velocity = np.clip(0.0, *self.reachable(motion, dt, 1.0))
        position = motion.position + velocity * dt
        return Motion(position=position, velocity=velocity, aim=position)

    def stopping_time_s(self, motion: Motion) -> float:
        """Seconds of braking until every joint is at rest; ticks round it up."""
        return float((np.abs(motion.velocity) / self.acceleration).max())

    def stopping_path(self, motion: Motion, num_poses: int) -> Vector:
        """[num_poses, joints] poses while braking from `motion`: the first is the present, the last is at rest."""
        times = np.linspace(0.0, self.stopping_time_s(motion), num_poses)[:, None]
        times = np.minimum(times, np.abs(motion.velocity) / self.acceleration)
        return motion.position + motion.velocity * times - np.sign(motion.velocity) * self.acceleration * times**2 / 2

    def rested(self, motion: Motion, elapsed_s: float) -> tuple[Motion, float]:
        """The motion after the part of a long tick in which the joints came to rest, and the length of the other."""
        dt = min(elapsed_s, self.longest_tick_s)
        lost = np.minimum(np.abs(motion.velocity), self.acceleration * (elapsed_s - dt))
        velocity = motion.velocity - np.sign(motion.velocity) * lost
        return Motion(position=motion.position, velocity=velocity, aim=motion.aim), dt

    def reachable(self, motion: Motion, dt: float, pace: float) -> tuple[Vector, Vector]:
        """Lowest and highest velocity [joints] of the next tick: acceleration, and stopping in range."""
        change, gentle = self.acceleration * dt, pace * self.acceleration * dt
        low = motion.velocity - np.where(motion.velocity > 0, change, gentle)
        high = motion.velocity + np.where(motion.velocity < 0, change, gentle)
        return (
            np.maximum(low, -self.braking_speed(motion.position - self.lowest, dt)),
            np.minimum(high, self.braking_speed(self.highest - motion.position, dt)),
        )

    def braking_speed(self, room: Vector, dt: float) -> Vector:
        """Largest speed v [joints] with `v dt + v² / 2a <= room`; 0 where there is no room."""
        room = np.maximum(room, 0.0)
        return 2 * room / (dt + np.sqrt(dt**2 + 2 * room / self.acceleration))

    def share(self, wanted: Vector, low: Vector, high: Vector) -> Vector:
        """[joints] largest share of the wanted velocity that all joints of a group can have."""
        bound = np.where(wanted > 0, high, low)
        own = np.clip(np.divide(bound, wanted, out=np.ones_like(wanted), where=np.abs(wanted) > TINY), 0.0, 1.0)
        shares = np.ones(self.num_groups)
        np.minimum.at(shares, self.groups, own)
        return shares[self.groups]


def rounded_up(values: ArrayLike) -> Vector:
    """The smallest numbers of single precision that are not below `values`."""
    exact = np.asarray(values, dtype=np.float64)
    near = exact.astype(np.float32)
    return np.where(near < exact, np.nextafter(near, np.float32(np.inf)), near).astype(np.float64)
