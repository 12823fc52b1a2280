"""The check: open a dataset, let every rule look, and collect what they found."""

from pathlib import Path

from molmoact2.data.quality import (
    following,
    language,
    motion,
    normalization,
    pictures,
    repetition,
    schema,
    timing,
    values,
)
from molmoact2.data.quality.findings import Finding, Report, Rule, Severity, findings_of, severity_order
from molmoact2.data.quality.material import Material
from molmoact2.data.quality.opening import open_material
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.registry import unknown

RULES: tuple[Rule, ...] = (
    *schema.RULES,
    *timing.RULES,
    *values.RULES,
    *motion.RULES,
    *following.RULES,
    *normalization.RULES,
    *repetition.RULES,
    *language.RULES,
    *pictures.RULES,
)
"""All rules, in the order in which they are told."""


def check_dataset(source: str | Path, *, embodiment: str | None = None, images: bool = True) -> Report:
    """Look for everything that is wrong with a dataset.

    Args:
        source: folder or hub id of a LeRobot dataset.
        embodiment: tag of the robot; by default the one whose tag is the dataset's robot type, if there is one.
        images: whether to decode a sample of the images and to count the frames of the videos.

    Returns:
        The report. A dataset that cannot be opened is an error of its own, `unreadable`, with no further findings.

    Raises:
        ValueError: for an embodiment that is not in the table.
    """
    if embodiment is not None and embodiment not in EMBODIMENTS:
        raise unknown("embodiment", embodiment, EMBODIMENTS)
    try:
        material = open_material(source, embodiment=EMBODIMENTS.get(embodiment or ""), images=images)
    except ValueError as error:
        return unreadable(source, str(error))
    if material.num_frames == 0:
        return unreadable(source, "it has no finished episode")
    return check_material(material)


def check_material(material: Material) -> Report:
    """Let every rule look that can."""
    gaps = material.gaps
    not_run = {rule.name: reason for rule in RULES for need, reason in gaps.items() if need in rule.needs}
    asked = [rule for rule in RULES if rule.name not in not_run]
    findings = [finding for rule in asked for finding in findings_of(rule, material)]
    guilty = {finding.rule for finding in findings}
    return Report(
        source=material.source,
        findings=tuple(sorted(findings, key=severity_order)),
        passed=tuple(rule.name for rule in asked if rule.name not in guilty),
        not_run=not_run,
        facts=material.facts,
        material=material,
    )


def unreadable(source: str | Path, problem: str) -> Report:
    """The report on a dataset that cannot be opened; its grade is F."""
    finding = Finding(
        rule="unreadable",
        severity=Severity.ERROR,
        title="The dataset cannot be opened",
        measured=problem,
        why="Nothing can be trained on it, and nothing else can be checked.",
        fix="Do what the message says, and check again.",
    )
    reason = "the dataset cannot be opened"
    return Report(source=str(source), findings=(finding,), not_run={rule.name: reason for rule in RULES})
