"""What a run amounts to: how often it looked, how old its plans were, what was dropped and what the guard did."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, PlanRequest, Trouble


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Some time of a run, counted."""

    seconds: float
    """Of the robot's clock."""
    ticks: int
    late_ticks: int
    """Commands that were left out, because a turn of the loop took too long."""
    plans: int
    """That were taken."""
    dropped: int
    """Plans that arrived and were not taken: late, out of order, or not finite."""
    questions: int
    latency_s: float
    """Median time from an observation to the arrival of its plan; 0 without plans."""
    latency_p95_s: float
    plan_age_s: float
    """Mean age of what was executed, since its observation; 0 where nothing was."""
    held_s: float
    """For which the arm held although it was asked to move."""
    findings: Mapping[str, int]
    """Kind of what the guard found -> ticks."""
    notes: tuple[str, ...]
    """What was said, in order."""

    @property
    def plans_per_second(self) -> float:
        """How often a new plan was taken."""
        return self.plans / self.seconds if self.seconds > 0 else 0.0

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "findings": dict(self.findings), "notes": list(self.notes)}


class Counts(Silent):
    """Observer that counts."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.late = self.questions = 0
        self.latencies_s: list[float] = []
        self.ages_s: list[float] = []
        self.held = self.dropped = 0
        self.findings: Counter[str] = Counter()
        self.notes: list[str] = []

    def ticked(self, tick: Tick, /) -> None:
        """Count a turn."""
        self.times_s.append(tick.time_s)
        self.late += tick.is_late
        self.ages_s += [] if tick.plan_age_s is None else [tick.plan_age_s]
        self.held += tick.verdict.is_holding and tick.wanted is not None
        self.findings.update(fault.kind for fault in tick.verdict.faults)

    def asked(self, _request: PlanRequest, /) -> None:
        """Count a question."""
        self.questions += 1

    def planned(self, plan: Plan, refusal: Trouble | None, /) -> None:
        """Count a plan."""
        self.dropped += refusal is not None
        self.latencies_s += [] if refusal else [plan.arrived_at_s - plan.observed_at_s]

    def noted(self, _time_s: float, note: str, /) -> None:
        """Keep what was said."""
        self.notes.append(note)

    def tally(self) -> Tally:
        """All of it, so far."""
        seconds = self.times_s[-1] - self.times_s[0] if self.times_s else 0.0
        latencies = self.latencies_s or [0.0]
        return Tally(
            seconds=seconds,
            ticks=len(self.times_s),
            late_ticks=self.late,
            plans=len(self.latencies_s),
            dropped=self.dropped,
            questions=self.questions,
            latency_s=float(np.median(latencies)),
            latency_p95_s=float(np.percentile(latencies, 95)),
            plan_age_s=float(np.mean(self.ages_s or [0.0])),
            held_s=self.held * seconds / max(1, len(self.times_s) - 1),
            findings=dict(self.findings),
            notes=tuple(self.notes),
        )
