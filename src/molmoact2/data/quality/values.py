"""Rules about the numbers themselves: finite, possible for the robot, and in its units."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.quality.findings import Found, Place, Rule, Severity
from molmoact2.data.quality.material import SLACK, Material, Vector, canonical

WIDEST_RADIANS = 6.4
"""Just over a turn: an arm whose angles all stay within this number of degrees is not moving."""
LEAST_MOTION = 0.05
WIDEST_FRACTION = 1.5
NEGATIVE = 0.05
"""As a fraction of the gripper's range: a gripper that is usually this far below closed has the wrong sign."""
OLD_FRAME_TAG = "so100_so101_molmoact2"
OLD_FRAME_LOWEST_DEG = -30.0
"""In the calibration that MolmoAct2's SO-100/101 data use, shoulder lift and elbow are 0 at rest and go up."""


def not_finite(material: Material) -> Iterator[Found]:
    """NaN or infinity in states or actions."""
    for vector in material.vectors:
        is_bad = ~np.isfinite(vector.raw)
        if is_bad.any():
            rows, dimensions = np.nonzero(is_bad)
            keys = np.stack([material.episode_of[rows], dimensions], axis=1)
            unique, first = np.unique(keys, axis=0, return_index=True)
            places = tuple(
                Place(episode=int(e), first_frame=int(f), last_frame=int(f), dimension=vector.label(d))
                for (e, d), f in zip(unique, material.frame_of[rows[first]], strict=True)
            )
            yield Found(measured=f"{is_bad.sum()} values of the {vector.kind} are NaN or infinite", places=places)


def outside_limits(material: Material) -> Iterator[Found]:
    """Values that the robot cannot have."""
    for vector in material.vectors:
        low, high = vector.limits.T
        room = SLACK * (high - low)
        is_outside = (vector.values < low - room) | (vector.values > high + room)
        dimensions = np.flatnonzero(is_outside.any(axis=0))
        wrong_units = {place.dimension for found in wrong_unit(material) for place in found.places}
        for d in (d for d in dimensions if vector.label(d) not in wrong_units):
            measured = (
                f"{vector.label(d)} is {vector.quantiles[0, d]:.4g} to {vector.quantiles[4, d]:.4g}, possible are "
                f"{low[d]:.4g} to {high[d]:.4g} {vector.units[d]}; outside: {is_outside[:, d].mean():.2%} of the frames"
            )
            episodes = np.unique(material.episode_of[is_outside[:, d]])
            yield Found(
                measured=measured, places=tuple(Place(episode=int(e), dimension=vector.label(d)) for e in episodes)
            )


def wrong_unit(material: Material) -> Iterator[Found]:
    """Angles in degrees for radians, grippers in percent for fractions, or the other way round."""
    for vector in material.vectors:
        magnitude = np.maximum(np.abs(vector.quantiles[1]), np.abs(vector.quantiles[3]))
        units = np.array(vector.units)
        is_deg = units == "deg"
        angles = magnitude[is_deg]
        all_small = bool(is_deg.any()) and bool((angles <= WIDEST_RADIANS).all()) and angles.max() > LEAST_MOTION
        largest = np.abs(vector.quantiles[[0, 4]]).max(axis=0)
        for unit, looks_like, is_wrong in (
            ("deg", "radians", is_deg & all_small),
            ("rad", "degrees", (units == "rad") & (magnitude > 2 * WIDEST_RADIANS)),
            ("percent", "a fraction from 0 to 1", (units == "percent") & (largest <= WIDEST_FRACTION) & (largest > 0)),
            ("fraction", "percent or metres", (units == "fraction") & (magnitude > WIDEST_FRACTION)),
        ):
            if is_wrong.any():
                yield _unit_found(vector, np.flatnonzero(is_wrong), unit, looks_like)


def _unit_found(vector: Vector, dimensions: NDArray[np.int64], unit: str, looks_like: str) -> Found:
    low, high = vector.quantiles[1, dimensions].min(), vector.quantiles[3, dimensions].max()
    return Found(
        measured=f"the {vector.kind} should be in {unit}, but 98 % of the values are within {low:.4g} to {high:.4g}: "
        f"that looks like {looks_like}",
        places=tuple(Place(dimension=vector.label(d)) for d in dimensions),
    )


def gripper_sign(material: Material) -> Iterator[Found]:
    """A gripper that is usually below closed."""
    full = {"percent": 100.0, "fraction": 1.0}
    for vector in material.vectors:
        sizes = np.array([full.get(unit, np.nan) for unit in vector.units])
        dimensions = np.flatnonzero(vector.quantiles[2] < -NEGATIVE * sizes)
        if len(dimensions):
            places = tuple(Place(dimension=vector.label(d)) for d in dimensions)
            median = vector.quantiles[2, dimensions[0]]
            yield Found(measured=f"the median of {vector.label(dimensions[0])} is {median:.3g}", places=places)


def joint_frame(material: Material) -> Iterator[Found]:
    """An SO-100/101 in LeRobot's current calibration, for a checkpoint that learned the older one."""
    names = [canonical(name) for name in material.state.names]
    wanted = [names.index(name) for name in ("shoulder_lift", "elbow_flex") if name in names]
    lowest = material.state.quantiles[1, wanted]
    is_new = material.robot.tag == OLD_FRAME_TAG and bool((lowest < OLD_FRAME_LOWEST_DEG).any())
    if is_new:
        values = ", ".join(f"{names[d]} {value:.0f}°" for d, value in zip(wanted, lowest, strict=True))
        places = tuple(Place(dimension=material.state.label(d)) for d in wanted)
        yield Found(measured=f"lowest usual values: {values}", places=places)


RULES = (
    Rule(
        name="not_finite",
        severity=Severity.ERROR,
        title="NaN or infinity",
        why="One such value makes the loss of its batch NaN, and the network with it.",
        fix="Leave these episodes out, or repair the recorder. Filling in numbers hides what was lost.",
        look=not_finite,
    ),
    Rule(
        name="wrong_unit",
        severity=Severity.ERROR,
        title="Not in the robot's units",
        why="A checkpoint of this robot normalises with statistics in its own units: everything would be nearly "
        "constant, or clipped.",
        fix="Convert states and actions (180 / pi between radians and degrees, 100 between fraction and percent).",
        look=wrong_unit,
        needs=("embodiment",),
    ),
    Rule(
        name="outside_limits",
        severity=Severity.WARNING,
        title="Beyond what the robot can do",
        why="Wrong calibration, wrong units or a sensor that failed; outliers also widen what the rest is scaled by.",
        fix="Check the calibration of this joint, and leave out the episodes where it happens.",
        look=outside_limits,
        needs=("embodiment",),
    ),
    Rule(
        name="gripper_sign",
        severity=Severity.ERROR,
        title="Gripper below closed",
        why="0 is closed and larger is more open. With the sign turned, the policy opens where it should grasp.",
        fix="Turn the sign of the gripper in states and actions, and check with one image where it is closed.",
        look=gripper_sign,
        needs=("embodiment",),
    ),
    Rule(
        name="joint_frame",
        severity=Severity.WARNING,
        title="Another calibration than the checkpoint's",
        why="MolmoAct2's SO-100/101 data use an older LeRobot calibration, in which shoulder lift and elbow are 0 at "
        "rest and positive in use. A released checkpoint misreads the current one.",
        fix="Convert: lift = 90 - lift, elbow = elbow + 90 (training.md C.6), or fine-tune with a tag of your own.",
        look=joint_frame,
        needs=("embodiment",),
    ),
)
