"""Readings of the same joints: which units, calibration, signs, offsets or gripper would put them where they belong.

A pose where the demonstrations never were has many causes; the few that are known to happen are tried, alone and
together, and the simplest that explains every joint is proposed.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import SO_JOINTS
from molmoact2.robots.calibration import OLD_SO_FRAME
from molmoact2.robots.doctor.case import Case

States: TypeAlias = NDArray[np.float64]
ENOUGH = 0.9
"""Share of the readings that has to lie where the training data were."""
MOST_COST = 3.0
"""Beyond which an explanation explains anything."""
JOINT_COST = 1.5
"""Of a mistake in one joint, where one in all of them costs 1: settings are mistaken more often than single motors."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that could be wrong, and what the numbers are without it."""

    words: str
    """What is wrong and what mends it; empty for nothing."""
    apply: Callable[[States], States]
    cost: float = 1.0


NOTHING = Change(words="", apply=lambda states: states, cost=0.0)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Changes that together put every joint where the training data were."""

    changes: tuple[Change, ...]
    distance: float
    """Mean distance from the middle of the training data, in their half widths."""


def inside(states: States, bounds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[d] whether enough of the readings [n, d] of a dimension lie within its bounds [d, 2]."""
    return ((states >= bounds[:, 0]) & (states <= bounds[:, 1])).mean(axis=0) >= ENOUGH


def explanations(case: Case, bounds: NDArray[np.float64]) -> list[Explanation]:
    """Those that cost least, the most central first; none where all that could explain it cost too much."""
    found: dict[float, list[Explanation]] = {}
    for common in itertools.product(unit_changes(case), frame_changes(case), gripper_changes(case)):
        states = case.sample.states
        for change in common:
            states = change.apply(states)
        fixes = joint_fixes(case, states, bounds)
        changes = tuple(change for change in (*common, *(fixes or ())) if change.words)
        cost = sum(change.cost for change in changes)
        if fixes is not None and cost <= MOST_COST:
            for change in fixes:
                states = change.apply(states)
            found.setdefault(cost, []).append(Explanation(changes=changes, distance=distance(states, bounds)))
    return sorted(found[min(found)], key=lambda explanation: explanation.distance) if found else []


def distance(states: States, bounds: NDArray[np.float64]) -> float:
    """Mean distance of readings from the middle of their bounds, in half widths."""
    half = np.maximum(np.ptp(bounds, axis=1) / 2, np.finfo(np.float64).tiny)
    return float((np.abs(states - bounds.mean(axis=1)) / half).mean())


def on(dimensions: NDArray[np.bool_], function: Callable[[States], States]) -> Callable[[States], States]:
    """`function` of these dimensions, the others as they are."""
    return lambda states: np.where(dimensions, function(states), states)


def unit_changes(case: Case) -> Iterator[Change]:
    """Degrees for radians, and the other way round, of all joints together."""
    yield NOTHING
    joints = ~case.gripper
    if "deg" in case.units:
        words = "the joints are told in radians and the checkpoint wants degrees: multiply by 180/pi"
        yield Change(words=words, apply=on(joints, np.rad2deg))
    if "rad" in case.units:
        words = "the joints are told in degrees and the checkpoint wants radians: multiply by pi/180"
        yield Change(words=words, apply=on(joints, np.deg2rad))


def frame_changes(case: Case) -> Iterator[Change]:
    """Of an SO-100/101: the calibration of today for the old one, and the other way round."""
    yield NOTHING
    if case.card.state_names == SO_JOINTS:
        yield Change(
            words='the checkpoint learned in the old SO calibration and the arm has today\'s: set calibration = "old"',
            apply=OLD_SO_FRAME.to_model,
        )
        yield Change(
            words="the checkpoint learned in today's SO calibration and the numbers are of the old one: "
            'set calibration = "new", or calibrate the arm again with today\'s LeRobot',
            apply=OLD_SO_FRAME.to_arm,
        )


def gripper_changes(case: Case) -> Iterator[Change]:
    """The gripper the other way round, or in the other unit."""
    yield NOTHING
    full = np.array([100.0 if unit == "percent" else 1.0 for unit in case.units])
    if case.gripper.any():
        yield Change(
            words="the gripper counts the other way round: send the full range minus its value",
            apply=on(case.gripper, lambda states: full - states),
        )
    if "percent" in case.units:
        words = "the gripper is told as a fraction and the checkpoint wants per cent: multiply by 100"
        yield Change(words=words, apply=on(case.gripper, lambda states: states * 100.0))
    if "fraction" in case.units:
        words = "the gripper is told in per cent and the checkpoint wants a fraction: divide by 100"
        yield Change(words=words, apply=on(case.gripper, lambda states: states / 100.0))


def joint_fixes(case: Case, states: States, bounds: NDArray[np.float64]) -> list[Change] | None:
    """A change for each joint that is still outside, the most central of those that fit; None where one has none."""
    fixes = list[Change]()
    for index in np.flatnonzero(~inside(states, bounds)):
        fitting = [fix for fix in single_joint(case, int(index)) if inside(fix.apply(states), bounds)[index]]
        if not fitting:
            return None
        fixes.append(min(fitting, key=lambda fix: distance(fix.apply(states), bounds)))
    return fixes


def single_joint(case: Case, index: int) -> Iterator[Change]:
    """A sign and a quarter turn of one joint."""
    quarters = {"deg": 90.0, "rad": np.pi / 2}
    if (unit := case.units[index]) not in quarters:
        return
    name, quarter, here = case.card.state_names[index], quarters[unit], np.arange(len(case.units)) == index
    for sign, turns in ((-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        sent = f"{'-' if sign < 0 else ''}{name}" + (f" {turns * quarter:+.4g}" if turns else "")
        yield Change(
            words=f"{name} has another {'sign' if not turns else 'zero' if sign > 0 else 'sign and zero'}: send {sent}",
            apply=on(here, lambda states, sign=sign, turns=turns: sign * states + turns * quarter),
            cost=JOINT_COST,
        )
