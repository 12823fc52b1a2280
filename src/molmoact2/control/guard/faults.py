"""What the guard finds, what it does about it, and when a person has to look."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum


class Severity(IntEnum):
    """What follows from a finding."""

    NOTE = 0
    """It is said; the arm moves on, within its limits."""
    HOLD = 1
    """The arm holds for as long as it is so; too often within a minute and a person has to look."""
    LATCH = 2
    """The arm holds until a person has looked."""


SEVERITIES: dict[str, Severity] = {
    "limited": Severity.NOTE,
    "range": Severity.NOTE,
    "workspace": Severity.NOTE,
    "grip": Severity.NOTE,
    "warm": Severity.NOTE,
    "no target": Severity.NOTE,
    "clock": Severity.HOLD,
    "reading": Severity.HOLD,
    "camera": Severity.HOLD,
    "target": Severity.HOLD,
    "jump": Severity.HOLD,
    "overload": Severity.HOLD,
    "frozen joints": Severity.LATCH,
    "frozen camera": Severity.LATCH,
    "tracking": Severity.LATCH,
    "hot": Severity.LATCH,
}
"""Kind of finding -> what follows."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One finding at one tick."""

    kind: str
    """A key of SEVERITIES."""
    message: str
    """A sentence with numbers and units."""

    @property
    def severity(self) -> Severity:
        """What follows from it."""
        return SEVERITIES[self.kind]


def found(is_so: bool, kind: str, message: str) -> tuple[Fault, ...]:
    """The finding, if it is so."""
    return (Fault(kind=kind, message=message),) if is_so else ()


def must_hold(faults: Iterable[Fault]) -> bool:
    """Whether one of them keeps the arm from moving."""
    return any(fault.severity > Severity.NOTE for fault in faults)


@dataclass(kw_only=True)
class Ledger:
    """Counts findings, says each of them once in a while, and remembers those that a person has to look at."""

    faults_until_human: int
    fault_window_s: float
    repeat_note_s: float
    present: tuple[Fault, ...] = ()
    """Of the last tick."""
    latched: str | None = None
    """Why a person has to look; None while none has to."""
    onsets_s: deque[float] = field(default_factory=deque)
    """When passing faults began."""
    said_s: dict[str, float] = field(default_factory=dict)

    def record(self, faults: Iterable[Fault], now: float, *, may_latch: bool) -> tuple[str, ...]:
        """Take the findings of a tick; returns the sentences that are news."""
        before = {fault.kind for fault in self.present}
        self.present = tuple(faults)
        held = [fault for fault in self.present if fault.severity is Severity.HOLD]
        self.onsets_s.extend(now for fault in held if fault.kind not in before)
        while self.onsets_s and not now - self.fault_window_s <= self.onsets_s[0] <= now:
            self.onsets_s.popleft()
        grave = [fault.message for fault in self.present if fault.severity is Severity.LATCH]
        if held and len(self.onsets_s) >= self.faults_until_human:
            grave += [f"{len(self.onsets_s)} faults within {self.fault_window_s:g} s, the last: {held[-1].message}"]
        return (*self.latch(grave if may_latch else []), *self.news(now))

    def latch(self, reasons: list[str]) -> tuple[str, ...]:
        """Hold for a person if there is a reason and none is held for yet; returns what to say about it."""
        if self.latched is not None or not reasons:
            return ()
        self.latched = reasons[0]
        return (f"A person has to look before the arm moves again: {self.latched}",)

    def news(self, now: float) -> tuple[str, ...]:
        """Sentences that were not said lately."""
        due = [f for f in self.present if not 0 <= now - self.said_s.get(f.kind, -1e9) < self.repeat_note_s]
        self.said_s |= dict.fromkeys((fault.kind for fault in due), now)
        return tuple(fault.message for fault in due)

    def clear(self) -> str | None:
        """A person has looked; returns at what."""
        reason, self.latched = self.latched, None
        self.onsets_s.clear()
        return reason
