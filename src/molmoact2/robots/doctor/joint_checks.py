"""Checks of joints: count, names, order, units, signs, offsets, grippers, and whether they are alive."""

from collections.abc import Iterable

import numpy as np

from molmoact2.robots.calibration import possible_units
from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.explanations import distance, explanations, inside
from molmoact2.robots.doctor.finding import Finding, first, ok, problem, unchecked, warning

HOT_C = 55.0
"""Motors of these arms switch themselves off at 70 degrees Celsius or soon after."""
BEYOND_GRIPPER = 0.1
"""Share of a gripper's range that a reading may be beyond it."""
MOVE_ON = "move the arm by hand to a pose in which a task begins, then ask again"
CLEAR = 0.3
"""Correlation beyond which two joints move together, or against each other."""


def count_of_joints(case: Case) -> Finding:
    """The state has as many numbers as the checkpoint reads, and they are numbers."""
    given, wanted = case.sample.states.shape[1], len(case.card.state_names)
    return first(
        (
            given != wanted,
            problem(
                "joint count",
                f"the robot's state has {given} numbers, the checkpoint reads {wanted}",
                "a state of another length is another robot's",
                f"send exactly {', '.join(case.card.state_names)}, in this order",
            ),
        ),
        (
            not np.isfinite(case.sample.states).all(),
            problem(
                "joint count",
                "a joint's reading is not a number",
                "a policy answers nonsense with nonsense",
                "look at the cable of that joint; a driver that says NaN has lost its motor",
            ),
        ),
        (True, ok("joint count", f"{given} numbers, as the checkpoint reads")),
    )


def order_of_joints(case: Case) -> Finding:
    """The dimensions have the checkpoint's names, in its order."""
    names, said = case.names, case.card.state_names
    wanted = said if case.embodiment is None else case.embodiment.canonical(said)
    strange = [f"{name} for {want}" for name, want in zip(names, wanted, strict=False) if name != want]
    fix = f"send the state in this order: {', '.join(said)}"
    return first(
        (len(names) != len(wanted), unchecked("joint order", "other joints than the checkpoint's", fix)),
        (not strange, ok("joint order", ", ".join(names))),
        (
            set(names) == set(wanted),
            problem(
                "joint order",
                f"the robot sends {', '.join(strange)}",
                "each joint would be moved as if it were another",
                fix,
            ),
        ),
        (
            True,
            warning(
                "joint order",
                f"other names than the checkpoint's: {', '.join(strange)}",
                "names are how the order is known; these could be the same joints, or not",
                f"see that they mean the same, then name them so. {fix.capitalize()}",
            ),
        ),
    )


def place_of_joints(case: Case) -> Finding:
    """Every joint is where the training data were; else what would put it there: units, calibration, signs, offsets."""
    bounds = case.known if case.usual is None else case.usual
    if not case.has_joints or bounds is None:
        missing = "the checkpoint says no ranges" if case.has_joints else "other joints than the checkpoint's"
        return unchecked("joint ranges", f"not compared: {missing}")
    states = case.sample.states
    outside = np.flatnonzero(~inside(states, bounds))
    if not len(outside):
        middle = f"{distance(states, bounds):.2f} half widths from the middle"
        return ok("joint ranges", f"every joint is where the training data were ({middle})")
    seen = "; ".join(describe(case, int(index)) for index in outside)
    found = explanations(case, bounds)
    mend = "; ".join(change.words for change in found[0].changes) if found else ""
    is_known = case.known is not None and bool(inside(states, case.known).all())
    if found and not is_known and (len(outside) > 1 or case.arm_moved):
        others = f" ({len(found) - 1} other readings of the same numbers fit too)" if len(found) > 1 else ""
        return problem("joint ranges", seen, f"one explanation mends every joint{others}", mend)
    rarely = "the demonstrations were rarely here" if is_known else "the demonstrations never were here"
    doubt = ", or one mistake explains it" if found else f"; no known mistake explains it{hint_of_units(case)}"
    advice = f"{MOVE_ON}; if it stays: {mend}" if found else MOVE_ON
    return warning("joint ranges", seen, f"{rarely}{doubt}", advice)


def describe(case: Case, index: int) -> str:
    """One joint that is not where it should be, in numbers."""
    statistics, values = case.card.state_statistics, case.sample.states[:, index]
    low, high = ("q01", "q99") if "q01" in statistics else ("min", "max")
    unit = case.units[index]
    return (
        f"{case.card.state_names[index]} reads {np.median(values):.4g}, the training data were "
        f"{statistics[low][index]:.4g} to {statistics[high][index]:.4g} {unit} ({low} to {high})"
    )


def hint_of_units(case: Case) -> str:
    """What the size of the numbers says, where degrees are wanted."""
    could_be = "deg" in case.units and "normalized" in possible_units(case.sample.states[:, ~case.gripper])
    return "; numbers within -100 and 100 could be LeRobot's normalised ones: set use_degrees = true" * could_be


def grippers(case: Case) -> Iterable[Finding]:
    """Each gripper reads within its range; what it reads says whether it should be open or closed."""
    ends = case.card.gripper_range or (case.embodiment.gripper_range if case.embodiment else None)
    if ends is None or not case.has_joints or not case.gripper.any():
        yield unchecked("gripper", "nobody says which of its readings is open", "look at its training data")
        return
    closed, opened = ends
    for index in np.flatnonzero(case.gripper):
        name, values = case.card.state_names[index], case.sample.states[:, index]
        share, meaning = (values - closed) / (opened - closed), f"{closed:g} is closed and {opened:g} open"
        yield first(
            (
                share.min() < -BEYOND_GRIPPER or share.max() > 1 + BEYOND_GRIPPER,
                problem(
                    "gripper",
                    f"{name} reads {values.min():.4g} to {values.max():.4g}, where {meaning}",
                    "a gripper outside its range is told in another unit",
                    "send it in the checkpoint's unit: a fraction is 0 to 1, per cent are 0 to 100",
                ),
            ),
            (
                True,
                unchecked(
                    "gripper",
                    f"{name} reads {values[-1]:.4g}: {100 * share[-1]:.0f} % open, where {meaning}",
                    "look at it: if it is not, its polarity is the other way round",
                ),
            ),
        )


def directions(case: Case) -> Iterable[Finding]:
    """In a recording, each joint moves the way it was commanded."""
    actions = case.sample.actions
    if actions is None or not case.has_joints or actions.shape != case.sample.states.shape:
        return
    commanded, moved = np.diff(actions[:-1], axis=0), np.diff(case.sample.states[1:], axis=0)
    norms = np.linalg.norm(commanded, axis=0) * np.linalg.norm(moved, axis=0)
    likeness = (commanded * moved).sum(axis=0) / np.where(norms > 0, norms, 1.0)
    against = [case.card.state_names[index] for index in np.flatnonzero(likeness < -CLEAR)]
    yield first(
        (not against, ok("directions", "no joint moved against its commands")),
        (
            True,
            problem(
                "directions",
                f"{', '.join(against)} moved against the commands",
                "state and action of the recording are not counted the same way",
                "give both the same sign and zero, and train again",
            ),
        ),
    )


def liveness(case: Case) -> Finding:
    """Readings change when the arm does."""
    travel, seconds = case.sample.travel, f"{case.sample.seconds:.1f} s"
    return first(
        (bool(travel.any()), ok("liveness", f"readings change, by up to {travel.max():.3g} within {seconds}")),
        (
            case.was_told_to_move,
            problem(
                "liveness",
                f"the joints read exactly the same for {seconds} while commands changed",
                "a policy that does not see its arm move pushes on",
                "reconnect the arm; see that its motors are on",
            ),
        ),
        (
            True,
            unchecked(
                "liveness",
                f"the joints read exactly the same for {seconds}",
                "move the arm by hand while the doctor looks: the readings should follow",
            ),
        ),
    )


def temperature(case: Case) -> Iterable[Finding]:
    """No motor is hot before work begins; nothing is said of arms that do not report it."""
    for hottest in () if case.sample.hottest_c is None else (case.sample.hottest_c,):
        seen = f"the hottest motor has {hottest:.0f} °C"
        hot = warning(
            "temperature",
            seen,
            "motors switch themselves off at 70 °C, and the arm drops",
            "let it cool down with its motors off",
        )
        yield first((hottest > HOT_C, hot), (True, ok("temperature", seen)))
