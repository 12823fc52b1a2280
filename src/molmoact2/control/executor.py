"""From plans to the target of every tick, by measured time.

A plan is tied to the moment of its observation, so a row is due when it was planned for, however late the plan came;
rows that have passed are not made up for. The one exception is a plan that was made while nothing was executed: the
arm still stands where it was seen, and the plan begins when it arrives.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.plan import Plan, Trouble
from molmoact2.control.strategies import ALMOST_S, Course, Strategy

LATENCIES = 20
"""Answers that the expected latency is judged by."""
CAUTIOUS_PERCENTILE = 90.0
"""High enough to be seldom exceeded, low enough that one slow answer, such as the first, changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How an executor stands, for people and records."""

    strategy: str
    num_taken: int
    num_dropped: dict[str, int]
    """Reason -> plans that were not executed: "width", "non-finite", "timing", "out of order", "overtaken", "late"."""
    latency_s: float
    """From an observation to its plan, as it is expected of the next."""
    rows_left: float
    """Of the newest plan, at the last target."""


class Executor:
    """Takes plans as they come, and says where to be at any moment.

    Args:
        strategy: how plans are joined, from `make_strategy`.
        action_dim: width of a row.
        control_hz: rows per second.
        first_latency_s: latency that is expected before the first plan has come.
    """

    def __init__(self, strategy: Strategy, action_dim: int, control_hz: float, *, first_latency_s: float = 0.2) -> None:
        self.strategy = strategy
        self.action_dim = action_dim
        self.period_s = 1.0 / control_hz
        self.courses: tuple[Course, ...] = ()
        self.last_sequence = -1
        self.first_latency_s = first_latency_s
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES)
        self.num_taken = 0
        self.dropped: Counter[str] = Counter()
        self.reset_at_s = -math.inf

    def take(self, plan: Plan, now: float) -> Trouble | None:
        """Execute a plan from now on; a Trouble says why it is dropped instead, and targets stay as they are."""
        kind, message = self.refusal(plan, now)
        if kind in (None, "late"):
            self.latencies_s.append(now - plan.observed_at_s)
        if kind is not None:
            self.dropped[kind] += 1
            return Trouble(sequence=plan.sequence, message=f"Plan {plan.sequence} is dropped: {message}")
        was_still = self.strategy.target(self.courses, plan.observed_at_s) is None and self.target(now) is None
        course = Course(
            rows=plan.actions.astype(np.float64),
            start_s=now if was_still else plan.observed_at_s,
            period_s=plan.period_s,
            taken_s=now,
        )
        self.courses = self.strategy.useful((*self.courses, course), now)
        self.last_sequence = plan.sequence
        self.num_taken += 1
        return None

    def refusal(self, plan: Plan, now: float) -> tuple[str | None, str]:
        """Kind and explanation of what is wrong with a plan; (None, "") where nothing is."""
        age = now - plan.observed_at_s
        width_is_right = plan.actions.ndim == 2 and len(plan.actions) > 0 and plan.actions.shape[1] == self.action_dim
        duration = len(plan.actions) * plan.period_s
        checks = (
            (width_is_right, "width", f"shape {plan.actions.shape}, expected rows of {self.action_dim} numbers."),
            (bool(np.isfinite(plan.actions).all()), "non-finite", "it holds numbers that are not finite."),
            (
                math.isclose(plan.period_s, self.period_s, rel_tol=1e-3) and -ALMOST_S <= age < math.inf,
                "timing",
                f"observed {age:.3f} s ago with a period of {plan.period_s:.4f} s; "
                f"expected the past and {self.period_s:.4f} s.",
            ),
            (
                plan.sequence > self.last_sequence,
                "out of order",
                f"plan {self.last_sequence} of a newer request was taken already.",
            ),
            (
                plan.observed_at_s >= self.reset_at_s - ALMOST_S,
                "overtaken",
                "it was made for what was seen before the arm was stopped or the episode began.",
            ),
            (
                age < duration - ALMOST_S,
                "late",
                f"it is {age:.2f} s old and covers {duration:.2f} s: all its rows have passed.",
            ),
        )
        return next(((kind, message) for is_right, kind, message in checks if not is_right), (None, ""))

    def target(self, now: float) -> NDArray[np.float64] | None:
        """[action_dim] where to be now; None where nothing is planned, and then the arm has to hold."""
        return self.strategy.target(self.courses, now)

    def remaining(self, now: float) -> NDArray[np.float32]:
        """[rows, action_dim] targets that are still to come, row 0 due now; what a new plan has to continue."""
        rows = []
        while (target := self.strategy.target(self.courses, now + len(rows) * self.period_s + ALMOST_S)) is not None:
            rows.append(target)
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.action_dim)

    def needs_plan(self, now: float) -> bool:
        """Whether it is time to ask; whether the planner is free is for the caller to know."""
        return self.strategy.is_due(self.courses, now, self.latency_s)

    @property
    def latency_s(self) -> float:
        """Seconds from an observation to its plan that are seldom exceeded, by the last plans."""
        seen_s = self.latencies_s or (self.first_latency_s,)
        return float(np.percentile(seen_s, CAUTIOUS_PERCENTILE, method="lower"))

    @property
    def latency_steps(self) -> int:
        """Rows that will surely be executed before the next plan is there, rounded up."""
        return math.ceil(self.latency_s / self.period_s - ALMOST_S)

    def reset(self, now: float) -> None:
        """Forget the plans, also those of observations before `now`: a new episode, or the arm was stopped."""
        self.courses = ()
        self.reset_at_s = now

    def progress(self, now: float) -> Progress:
        """How it stands."""
        end_s = self.courses[-1].end_s if self.courses else now
        return Progress(
            strategy=self.strategy.name,
            num_taken=self.num_taken,
            num_dropped=dict(self.dropped),
            latency_s=self.latency_s,
            rows_left=max(0.0, (end_s - now) / self.period_s),
        )
