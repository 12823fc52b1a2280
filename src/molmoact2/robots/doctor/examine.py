"""The table of checks, and the diagnosis that comes of running them all."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from molmoact2.robots.doctor import camera_checks, card_checks, joint_checks, timing_checks, view_checks
from molmoact2.robots.doctor.case import Case, Execution, Trial
from molmoact2.robots.doctor.finding import Diagnosis, Finding
from molmoact2.robots.doctor.sample import Sample, View
from molmoact2.wire.messages import RobotCard

Check: TypeAlias = Callable[[Case], Iterable[Finding]]


def one(check: Callable[[Case], Finding]) -> Check:
    """A check that has one thing to say."""
    return lambda case: (check(case),)


def each_view(check: Callable[[Case, View], Finding]) -> Check:
    """A check of one camera, of all of them."""
    return lambda case: (check(case, view) for view in case.sample.views.values())


CHECKS: Mapping[str, Sequence[Check]] = {
    "Checkpoint": (card_checks.table_of_embodiments, one(card_checks.steps)),
    "Cameras": (
        one(camera_checks.names_of_cameras),
        each_view(camera_checks.size),
        each_view(camera_checks.frame_rate),
        each_view(camera_checks.dead_view),
        each_view(camera_checks.frozen_view),
        camera_checks.same_views,
        view_checks.swapped_views,
        each_view(view_checks.colour_order),
    ),
    "Joints": (
        one(joint_checks.count_of_joints),
        one(joint_checks.order_of_joints),
        one(joint_checks.place_of_joints),
        joint_checks.grippers,
        joint_checks.directions,
        one(joint_checks.liveness),
        joint_checks.temperature,
    ),
    "Time": (timing_checks.reading_rate, timing_checks.answer, timing_checks.first_step, one(timing_checks.latency)),
}
"""Section of the report -> what is looked at."""


def diagnose(
    sample: Sample,
    card: RobotCard,
    *,
    checkpoint: str,
    reference: Sample | None = None,
    trial: Trial | None = None,
    execution: Execution = "open-loop",
) -> Diagnosis:
    """Compare some seconds of a robot with what a checkpoint expects.

    `checkpoint` names it in the report; `reference` is a recording that it learned from; `trial` is what it answered
    when it was asked. ValueError where nothing was sampled.
    """
    if len(sample.times_s) < 2:
        raise ValueError(f"The doctor needs at least two readings of the joints; got {len(sample.times_s)}.")
    case = Case(sample=sample, card=card, reference=reference, trial=trial or Trial(), execution=execution)
    sections = {name: tuple(finding for check in checks for finding in check(case)) for name, checks in CHECKS.items()}
    return Diagnosis(robot=sample.source, checkpoint=checkpoint, sections=sections)
