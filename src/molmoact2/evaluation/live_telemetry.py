"""What the robot did, told to the server a few times a second, for its dashboard."""

from collections.abc import Callable

import numpy as np

from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, Trouble
from molmoact2.wire.messages import Telemetry


class Reporter(Silent):
    """Observer that collects ticks and sends them together."""

    def __init__(self, report: Callable[[Telemetry], None], *, period_s: float = 0.2) -> None:
        """`report` sends, and has to return at once."""
        self.report = report
        self.period_s = period_s
        self.ticks: list[Tick] = []
        self.notes: list[str] = []
        self.due_s = -np.inf

    def ticked(self, tick: Tick, /) -> None:
        """Keep a tick that moved something, and send what there is when it is time."""
        self.ticks += [tick] if tick.reading is not None and tick.verdict.command is not None else []
        if tick.time_s < self.due_s or not (self.ticks or self.notes):
            return
        self.due_s = tick.time_s + self.period_s
        pairs = [(t.verdict.command, t.reading.state) for t in self.ticks if t.reading is not None]
        self.report(
            Telemetry(
                time=tick.time_s,
                mode=tick.verdict.mode,
                executed=np.array([command for command, _ in pairs], dtype=np.float32),
                measured=np.array([state for _, state in pairs], dtype=np.float32),
                times=np.array([t.time_s for t in self.ticks]),
                notes=tuple(self.notes),
            )
        )
        self.ticks.clear()
        self.notes.clear()

    def planned(self, _plan: Plan, refusal: Trouble | None, /) -> None:
        """Say why a plan was dropped."""
        self.notes += [refusal.message] if refusal else []

    def noted(self, _time_s: float, note: str, /) -> None:
        """Pass it on."""
        self.notes.append(note)
