"""How plans become one motion: which plan counts when, and when to ask for the next.

open-loop   plan 1 |=========|  wait  |=========|            ask at the end, the arm waits
replan      plan 1 |=====----|                               ask every n rows, the newest counts
ensemble    plan 1 |=========|        all that cover a       ask always, weighted mean
            plan 2    |=========|     moment count
blend       plan 1 |=====\\                                   ask always, fade from the old to the new
            plan 2    |  /======|
real-time   plan 1 |=====                                    ask always, the new plan begins with the rows that
            plan 2    |ooo======|     o committed rows       are executed anyway, so there is nothing to fade
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.registry import unknown

Vector = NDArray[np.float64]
ALMOST_S = 1e-6
"""Two moments this near are the same: clocks add up periods that are not binary fractions."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A plan that was taken: positions over time, straight lines between the rows."""

    rows: NDArray[np.float64]
    """[rows, action_dim]"""
    start_s: float
    """When row 0 is due."""
    period_s: float
    taken_s: float
    """When the executor took it."""

    @property
    def end_s(self) -> float:
        """When its last row has had its period."""
        return self.start_s + len(self.rows) * self.period_s

    def covers(self, now: float) -> bool:
        """Whether it says something about this moment."""
        return self.start_s - ALMOST_S <= now < self.end_s - ALMOST_S

    def at(self, now: float) -> Vector:
        """[action_dim] where to be; its first or last row at moments that it does not cover."""
        place = np.clip((now - self.start_s) / self.period_s, 0.0, len(self.rows) - 1.0)
        before = min(int(place), len(self.rows) - 2)
        if before < 0:
            return self.rows[0]
        return self.rows[before] + (place - before) * (self.rows[before + 1] - self.rows[before])


class Strategy(Protocol):
    """One way to execute plans. Says everything as a function of the courses that it is given, oldest first."""

    @property
    def name(self) -> str:
        """As `make_strategy` knows it."""
        ...

    def is_due(self, courses: Sequence[Course], now: float, latency_s: float, /) -> bool:
        """Whether to ask for a plan, given how long the answer takes."""
        ...

    def target(self, courses: Sequence[Course], now: float, /) -> Vector | None:
        """[action_dim] where to be; None where no course says."""
        ...

    def useful(self, courses: Sequence[Course], now: float, /) -> tuple[Course, ...]:
        """The courses that still matter from now on."""
        ...


def newest(courses: Sequence[Course], now: float) -> Vector | None:
    """What the newest course says of this moment."""
    return courses[-1].at(now) if courses and courses[-1].covers(now) else None


@dataclass(frozen=True, kw_only=True)
class OpenLoop:
    """Executes a plan to its end, and asks only then. The arm waits for the answer."""

    name: str = "open-loop"

    def is_due(self, courses: Sequence[Course], now: float, _latency_s: float, /) -> bool:
        """When the plan is over."""
        return not courses or now >= courses[-1].end_s - ALMOST_S

    def target(self, courses: Sequence[Course], now: float, /) -> Vector | None:
        """What the only plan says."""
        return newest(courses, now)

    def useful(self, courses: Sequence[Course], _now: float, /) -> tuple[Course, ...]:
        """The newest."""
        return tuple(courses[-1:])


@dataclass(frozen=True, kw_only=True)
class Replan:
    """Looks again after every `every` rows, and changes to the new plan when it comes.

    It asks early by the latency that is expected, so that the answer comes when the rows are executed.
    """

    every: int
    """1 asks as soon as a row has passed."""
    name: str = "replan"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"A plan is replaced after 1 row or more; got every={self.every}.")

    def is_due(self, courses: Sequence[Course], now: float, latency_s: float, /) -> bool:
        """When the answer would come at row `every`, or later."""
        due_s = courses[-1].start_s + self.every * courses[-1].period_s if courses else now
        return now + latency_s >= due_s - ALMOST_S

    def target(self, courses: Sequence[Course], now: float, /) -> Vector | None:
        """What the newest plan says."""
        return newest(courses, now)

    def useful(self, courses: Sequence[Course], _now: float, /) -> tuple[Course, ...]:
        """The newest."""
        return tuple(courses[-1:])


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Means of everything that was planned for a moment, however long ago.

    With weights exp(-c i), i = 0 the oldest, this is the temporal ensembling of ACT.
    """

    weights: Callable[[int], Vector]
    """Number of plans -> a weight of each, oldest first; they need not sum to 1."""
    name: str = "ensemble"

    def is_due(self, _courses: Sequence[Course], _now: float, _latency_s: float, /) -> bool:
        """Always."""
        return True

    def target(self, courses: Sequence[Course], now: float, /) -> Vector | None:
        """Weighted mean of the plans that cover this moment."""
        poses = [course.at(now) for course in courses if course.covers(now)]
        return np.average(poses, axis=0, weights=self.weights(len(poses))) if poses else None

    def useful(self, courses: Sequence[Course], now: float, /) -> tuple[Course, ...]:
        """Those that are not over."""
        return tuple(course for course in courses if now < course.end_s)


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Fades from what was being executed to the new plan, over `window_s` from when it came."""

    window_s: float
    name: str = "blend"

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise ValueError(f"Plans are blended over a positive number of seconds; got window_s={self.window_s}.")

    def is_due(self, _courses: Sequence[Course], _now: float, _latency_s: float, /) -> bool:
        """Always."""
        return True

    def target(self, courses: Sequence[Course], now: float, /) -> Vector | None:
        """The courses, each faded over the one before."""
        if newest(courses, now) is None:
            return None
        pose = courses[0].at(now)
        for course in courses[1:]:
            pose = pose + self.faded(course, now) * (course.at(now) - pose)
        return pose

    def faded(self, course: Course, now: float) -> float:
        """Share of a course in the motion: 0 when it was taken, 1 after the window, its slope 0 at both ends."""
        share = min(max((now - course.taken_s) / self.window_s, 0.0), 1.0)
        return share * share * (3 - 2 * share)

    def useful(self, courses: Sequence[Course], now: float, /) -> tuple[Course, ...]:
        """The newest, and what it is not yet faded from."""
        complete = [i for i, course in enumerate(courses) if self.faded(course, now) >= 1.0]
        return tuple(courses[max(complete, default=0) :])


def exponential(decay: float) -> Callable[[int], Vector]:
    """Weights exp(-decay i), i = 0 the oldest: a positive decay trusts the older plans, a negative one the newer."""
    return lambda count: np.exp(-decay * np.arange(count))


def sequential(old_share: float) -> Callable[[int], Vector]:
    """Weights that come of mixing every new plan with the mean so far, which keeps `old_share`."""
    return lambda count: (
        np.where(np.arange(count) == 0, 1.0, 1.0 - old_share)
        * old_share ** np.arange(count - 1, -1, -1, dtype=np.float64)
    )


WEIGHTS: dict[str, Callable[[int], Vector]] = {
    "exponential": exponential(0.01),
    "latest_only": sequential(0.0),
    "weighted_average": sequential(0.3),
    "average": sequential(0.5),
    "conservative": sequential(0.7),
}
"""Rule of an ensemble -> its weights: ACT's, and LeRobot's aggregators by their names."""


def ensemble(weights: str = "exponential", decay: float | None = None) -> Ensemble:
    """An ensemble by the name of its rule, or of exponential weights with this decay."""
    if weights not in WEIGHTS:
        raise unknown("rule of weights", weights, WEIGHTS)
    if decay is not None and (weights != "exponential" or not math.isfinite(decay)):
        raise ValueError(f"A decay is a finite number that goes with exponential weights; got {decay} with {weights}.")
    return Ensemble(weights=WEIGHTS[weights] if decay is None else exponential(decay))


def replan(every: int = 8) -> Replan:
    """Look again after `every` rows."""
    return Replan(every=every)


def real_time(every: int = 1) -> Replan:
    """Look again as soon as `every` rows of a plan have passed; the planner continues the rows that are committed."""
    return Replan(every=every, name="real-time")


def blend(window_s: float = 0.2) -> Blend:
    """Fade from plan to plan over `window_s`."""
    return Blend(window_s=window_s)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "open-loop": OpenLoop,
    "replan": replan,
    "ensemble": ensemble,
    "blend": blend,
    "real-time": real_time,
}


def make_strategy(name: str, **options: float | int | str) -> Strategy:
    """The strategy called `name`.

    Args:
        options: "replan" and "real-time" take `every` (rows), "ensemble" `weights` (a key of WEIGHTS) and `decay`,
            "blend" `window_s`.

    Raises:
        ValueError: an unknown name, or an option out of its range.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    return STRATEGIES[name](**options)
