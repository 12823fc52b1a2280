"""What the doctor says: findings, and the diagnosis that they make up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

Severity: TypeAlias = Literal["ok", "unchecked", "warning", "problem"]
"""In order of gravity. "unchecked" is what could not be seen from what was given; it is never left out."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """Name of the check, for instance "frozen views"."""
    severity: Severity
    seen: str
    """What was found, with numbers and units."""
    why: str = ""
    """Why it matters; empty where all is well."""
    fix: str = ""
    """What to do about it; empty where all is well."""


def ok(check: str, seen: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check=check, severity="ok", seen=seen)


def unchecked(check: str, seen: str, fix: str = "") -> Finding:
    """It could not be seen; `fix` says what to give the doctor."""
    return Finding(check=check, severity="unchecked", seen=seen, fix=fix)


def warning(check: str, seen: str, why: str, fix: str) -> Finding:
    """It may be wrong, or makes the policy worse."""
    return Finding(check=check, severity="warning", seen=seen, why=why, fix=fix)


def problem(check: str, seen: str, why: str, fix: str) -> Finding:
    """Nothing should move before this is mended."""
    return Finding(check=check, severity="problem", seen=seen, why=why, fix=fix)


def first(*cases: tuple[bool | np.bool_, Finding]) -> Finding:
    """The finding of the first case that holds; the last one has to."""
    return next(finding for holds, finding in cases if holds)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings on one robot and one checkpoint."""

    robot: str
    """What was looked at, in words."""
    checkpoint: str
    """What it was compared with, in words."""
    sections: Mapping[str, tuple[Finding, ...]]
    """Section -> its findings, in the order in which they were looked for."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of every section."""
        return tuple(finding for section in self.sections.values() for finding in section)

    @property
    def counts(self) -> Mapping[str, int]:
        """Severity -> how many findings have it."""
        return Counter(finding.severity for finding in self.findings)

    @property
    def is_healthy(self) -> bool:
        """Whether there is no problem; warnings are for a human to judge."""
        return not self.counts["problem"]

    def document(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        sections = {name: [asdict(finding) for finding in findings] for name, findings in self.sections.items()}
        return {
            "robot": self.robot,
            "checkpoint": self.checkpoint,
            "is_healthy": self.is_healthy,
            "counts": dict(self.counts),
            "sections": sections,
        }
