"""What a check of a dataset says: rules, what they found and where, and the grade that follows.

A rule is a function from the `Material` of a dataset to what it found, with the words that go with it: why it matters
for training, and what to do. The rules themselves are in the other files of this folder, one file per family.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from molmoact2.data.quality.material import Material

FEW_EPISODES = 0.01
"""A warning that touches at most this share of the episodes counts as a note."""
MOST_WARNINGS_FOR_B = 2


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """A policy trained on this learns something wrong, or training fails."""
    WARNING = "warning"
    """It costs quality, or is probably a mistake."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something was found; what is None or empty is not narrowed down."""

    episode: int | None = None
    first_frame: int | None = None
    """Frames since the start of the episode."""
    last_frame: int | None = None
    """Inclusive."""
    dimension: str = ""
    """For instance "action gripper"."""
    camera: str = ""

    def __str__(self) -> str:
        frames = f"{self.first_frame}" + (f" to {self.last_frame}" if self.last_frame != self.first_frame else "")
        words = {
            "episode": self.episode,
            "frame": None if self.first_frame is None else frames,
            "dimension": self.dimension or None,
            "camera": self.camera or None,
        }
        return ", ".join(f"{name} {value}" for name, value in words.items() if value is not None)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing that a rule saw."""

    measured: str
    """What was measured, in a sentence."""
    places: tuple[Place, ...] = ()
    """All of them; none where it concerns the whole dataset."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One thing to look for."""

    name: str
    """In the form `frozen_camera`."""
    severity: Severity
    title: str
    """What is wrong when it is found, in a few words."""
    why: str
    """What it does to training."""
    fix: str
    """What to do about it."""
    look: Callable[[Material], Iterable[Found]]
    needs: tuple[str, ...] = ()
    """What the rule cannot do without: keys of `Material.gaps`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule found, and what follows."""

    rule: str
    severity: Severity
    title: str
    measured: str
    why: str
    fix: str
    places: tuple[Place, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        places = [
            {name: value for name, value in vars(place).items() if value not in (None, "")} for place in self.places
        ]
        words = {name: str(value) for name, value in vars(self).items() if name != "places"}
        return words | {"places": places}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a check."""

    source: str
    findings: tuple[Finding, ...]
    """Errors first, then warnings, then notes."""
    passed: tuple[str, ...] = ()
    """Rules that looked and found nothing."""
    not_run: Mapping[str, str] = field(default_factory=dict)
    """Rule -> why it could not look."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the dataset is, in numbers."""
    material: Material | None = None
    """What was looked at, for plots; None where the dataset could not be opened."""

    def count(self, severity: Severity) -> int:
        """Number of rules with findings of one severity."""
        return len({finding.rule for finding in self.findings if finding.severity == severity})

    @property
    def counts(self) -> str:
        """For instance "2 errors, 1 warning, no notes"."""
        counts = {severity: self.count(severity) for severity in Severity}
        return ", ".join(f"{count or 'no'} {severity}{'' if count == 1 else 's'}" for severity, count in counts.items())

    @property
    def grade(self) -> str:
        """A to F, by the number of rules (not of places) that found something.

        A: no error, no warning. B: up to two warnings. C: more warnings. D: one error. F: more errors, or a dataset
        that cannot be opened.
        """
        errors, warnings = self.count(Severity.ERROR), self.count(Severity.WARNING)
        return grade_of(errors, warnings) if self.material else "F"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "source": self.source,
            "grade": self.grade,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "facts": dict(self.facts),
            "findings": [finding.to_dict() for finding in self.findings],
            "passed": list(self.passed),
            "not_run": dict(self.not_run),
        }


def grade_of(num_errors: int, num_warnings: int) -> str:
    """The grade for so many rules with errors and with warnings."""
    grades = {
        "F": num_errors > 1,
        "D": num_errors == 1,
        "C": num_warnings > MOST_WARNINGS_FOR_B,
        "B": num_warnings > 0,
        "A": True,
    }
    return next(grade for grade, holds in grades.items() if holds)


def findings_of(rule: Rule, material: Material) -> list[Finding]:
    """Let one rule look."""
    return [
        Finding(
            rule=rule.name,
            severity=weighed(rule.severity, found.places, material.num_episodes),
            title=rule.title,
            measured=found.measured,
            why=rule.why,
            fix=rule.fix,
            places=found.places,
        )
        for found in rule.look(material)
    ]


def weighed(severity: Severity, places: Sequence[Place], num_episodes: int) -> Severity:
    """A warning about few of the episodes is a note; everything else stays what it is."""
    episodes = {place.episode for place in places} or {None}
    is_rare = None not in episodes and len(episodes) <= FEW_EPISODES * num_episodes
    return Severity.NOTE if is_rare and severity is Severity.WARNING else severity


def severity_order(finding: Finding) -> int:
    """Errors before warnings before notes."""
    return list(Severity).index(finding.severity)


def episodes_at(episodes: Iterable[Any], **where: Any) -> tuple[Place, ...]:
    """A place per episode."""
    return tuple(Place(episode=int(episode), **where) for episode in episodes)
