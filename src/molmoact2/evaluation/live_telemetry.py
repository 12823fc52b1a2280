"""What the robot did, told to the server a few times a second, for its dashboard."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, Trouble
from molmoact2.wire.messages import Telemetry

LONGEST_NOTE = 500
"""Letters of a note that are sent."""


class Reporter(Silent):
    """Observer that collects ticks and sends them together. Readings that are not finite are not sent."""

    def __init__(self, report: Callable[[Telemetry], None], num_joints: int, *, period_s: float = 0.2) -> None:
        """`report` sends, and has to return at once."""
        self.report = report
        self.num_joints = num_joints
        self.period_s = period_s
        self.moments: list[tuple[float, NDArray[np.float32], NDArray[np.float32]]] = []
        """When, what was commanded, what was measured."""
        self.notes: list[str] = []
        self.due_s = -np.inf

    def ticked(self, tick: Tick, /) -> None:
        """Keep a tick that moved something, and send what there is when it is time."""
        if tick.reading is not None and tick.verdict.command is not None and np.isfinite(tick.reading.state).all():
            self.moments.append((tick.time_s, tick.verdict.command, tick.reading.state))
        if tick.time_s < self.due_s or not (self.moments or self.notes):
            return
        self.due_s = tick.time_s + self.period_s
        self.report(
            Telemetry(
                time=tick.time_s,
                mode=tick.verdict.mode,
                executed=self._stack([command for _, command, _ in self.moments]),
                measured=self._stack([state for _, _, state in self.moments]),
                times=np.array([time_s for time_s, _, _ in self.moments]),
                notes=tuple(self.notes),
            )
        )
        self.moments.clear()
        self.notes.clear()

    def planned(self, _plan: Plan, refusal: Trouble | None, /) -> None:
        """Say why a plan was dropped."""
        self.notes += [refusal.message[:LONGEST_NOTE]] if refusal else []

    def noted(self, _time_s: float, note: str, /) -> None:
        """Pass it on."""
        self.notes.append(note[:LONGEST_NOTE])

    def _stack(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """[ticks, joints], of no ticks too."""
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.num_joints)
