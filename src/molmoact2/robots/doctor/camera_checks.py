"""Checks of cameras: names, order, size, rate, and whether each is alive."""

import itertools
from collections.abc import Iterable

import numpy as np

from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.finding import Finding, first, ok, problem, unchecked, warning
from molmoact2.robots.doctor.sample import View

SMALLEST_SIDE = 120
"""Pixels, below which too little can be seen; the released networks look at squares of 378."""
OTHER_SHAPE = 0.1
"""Share by which proportions may differ from those of the recording."""
DEAD_STD = 1.0
"""Grey levels: a picture that varies less is of nothing."""
SAME_LEVELS = 2.0
"""Mean difference of grey levels below which two cameras show the same picture."""
SLOW = 0.9
"""Share of the control rate, below which a camera is slow."""
UNEVEN = 2.5
"""Longest period of a steady camera, in usual periods."""
OLD_S = 0.25
"""Age of a frame that is worth saying."""
FROZEN_FRAMES = 5
"""Frames beyond which a camera can be called frozen."""
LIVELY_SHARE = 0.1
"""Of the frames of a camera that lives, at least so many differ from the one before."""


def names_of_cameras(case: Case) -> Finding:
    """The robot has the cameras that the policy expects, by their names."""
    wanted, given = case.expected_cameras, case.given_cameras
    missing = [name for name in wanted if name not in given.values()]
    extra = [name for name, known in given.items() if known not in wanted]
    renamed = [f" ({name} is {known})" for name, known in given.items() if name != known and known in wanted]
    rename = [f"rename {name!r} to {other!r}, if it is that view" for name, other in zip(extra, missing, strict=False)]
    return first(
        (
            not wanted,
            unchecked(
                "camera names",
                f"this checkpoint takes any cameras, in the order given: {', '.join(given)}",
                "give them in the order of the data that it was trained on",
            ),
        ),
        (
            bool(missing),
            problem(
                "camera names",
                f"the policy expects {', '.join(wanted)}; the robot has {', '.join(given) or 'none'}, and misses "
                f"{', '.join(missing)}",
                "a policy without one of its views refuses, or guesses",
                f"in the robot's settings, {', '.join(rename) or 'connect it'}",
            ),
        ),
        (
            bool(extra),
            warning(
                "camera names",
                f"the policy does not know {', '.join(extra)}",
                "it is not sent, and takes its share of the USB bus",
                "leave it out of the robot's settings",
            ),
        ),
        (True, ok("camera names", ", ".join(wanted) + "".join(renamed))),
    )


def size(case: Case, view: View) -> Finding:
    """A picture is large enough, upright, and of the shape of the training data's."""
    (height, width), known = view.picture.shape[:2], case.reference_view(view.name)
    seen = f"{view.name}: {width} x {height} pixels"
    known_height, known_width = (height, width) if known is None else known.picture.shape[:2]
    return first(
        (
            len(view.sizes) > 1,
            problem(
                "image size",
                f"{view.name}: {', '.join(f'{wide} x {high}' for high, wide in view.sizes)} by turns",
                "a camera keeps its size",
                "set its size",
            ),
        ),
        (
            min(height, width) < SMALLEST_SIDE,
            warning(
                "image size",
                seen,
                "a gripper and what it reaches for are a few pixels there; the released networks look at 378 x 378",
                "set the camera to 640 x 480 or 640 x 360",
            ),
        ),
        (
            known is None and height > width,
            warning(
                "image size",
                f"{seen}, higher than wide",
                "training pictures are hardly ever upright formats: the camera may be turned by 90 degrees",
                "look at the picture (--picture), and turn the camera or the picture",
            ),
        ),
        (
            abs(np.log(width * known_height / (height * known_width))) > OTHER_SHAPE,
            warning(
                "image size",
                f"{seen}; the recording has {known_width} x {known_height}",
                "pictures are stretched to a square, so another shape makes other proportions",
                f"set the camera to the proportions of {known_width} x {known_height}",
            ),
        ),
        (True, ok("image size", seen)),
    )


def frame_rate(case: Case, view: View) -> Finding:
    """A camera gives new frames as often as the policy acts, evenly, and without delay."""
    periods = np.diff(view.times_s)
    if len(periods) < 2:
        return unchecked("frame rate", f"{view.name}: too few frames")
    usual_s, longest_s, age_s = float(np.median(periods)), float(periods.max()), float(np.median(view.ages_s))
    seen = (
        f"{view.name}: {1 / usual_s:.1f} new frames a second, at most {1000 * longest_s:.0f} ms apart, "
        f"{1000 * age_s:.0f} ms old"
    )
    return first(
        (case.sample.kind == "simulated", ok("frame rate", f"{view.name}: rendered whenever it is looked at")),
        (
            SLOW * case.card.control_hz * usual_s > 1,
            warning(
                "frame rate",
                f"{seen}; the policy acts at {case.card.control_hz:g} Hz",
                "it decides on pictures that are older than they seem",
                "more light (a long exposure slows a camera down), a smaller size, or a USB port of its own",
            ),
        ),
        (
            longest_s > UNEVEN * usual_s,
            warning("frame rate", seen, "frames get lost", "another cable, or a USB port of its own"),
        ),
        (
            age_s > OLD_S,
            warning("frame rate", seen, "the arm has moved on when the policy sees it", "a camera without a queue"),
        ),
        (True, ok("frame rate", seen)),
    )


def dead_view(_: Case, view: View) -> Finding:
    """A picture shows something."""
    spread, level = float(view.picture.std()), float(view.picture.mean())
    return first(
        (
            spread < DEAD_STD,
            problem(
                "dead views",
                f"{view.name}: all pixels are about {level:.0f} of 255 (spread {spread:.2f})",
                "the policy is blind there",
                "take off the lens cap, look at the cable, and see that nothing else uses the camera",
            ),
        ),
        (True, ok("dead views", f"{view.name}: pixels spread by {spread:.0f} grey levels around {level:.0f}")),
    )


def frozen_view(case: Case, view: View) -> Finding:
    """A picture changes with time. A sensor's noise alone makes it change; a simulated one has none."""
    arm_moved = case.has_joints and case.arm_moved
    frames, changed = len(view.times_s), int((view.changes > 0).sum())
    seen = f"{view.name}: {changed} of {frames - 1} frames differ from the one before"
    return first(
        (
            frames < 2 and case.sample.seconds > 1,
            problem(
                "frozen views",
                f"{view.name}: one frame in {case.sample.seconds:.1f} s",
                "a frozen picture is a perfectly good picture, and the policy acts on it",
                "reconnect the camera",
            ),
        ),
        (changed >= LIVELY_SHARE * frames or frames <= FROZEN_FRAMES, ok("frozen views", seen)),
        (
            case.sample.kind == "simulated" and not arm_moved,
            unchecked("frozen views", f"{seen}; so it is in simulation, while nothing moves"),
        ),
        (
            True,
            problem(
                "frozen views",
                f"{seen}{', while the arm moved' * arm_moved}",
                "even a picture of a wall trembles; this one stands still, and the policy would act on it",
                "reconnect the camera, and restart what serves it",
            ),
        ),
    )


def same_views(case: Case) -> Iterable[Finding]:
    """No two cameras show the same picture."""
    for (one, a), (other, b) in itertools.combinations(case.sample.views.items(), 2):
        is_one_size = a.thumbnails.shape[1:] == b.thumbnails.shape[1:]
        difference = np.abs(a.thumbnails[-1].astype(float) - b.thumbnails[-1]).mean() if is_one_size else np.inf
        yield first(
            (
                difference < SAME_LEVELS,
                problem(
                    "same view twice",
                    f"{one} and {other} differ by {difference:.1f} grey levels",
                    "two names mean one camera: a view is missing, and one counts double",
                    "give each name its own device in the robot's settings",
                ),
            ),
            (True, ok("same view twice", f"{one} and {other} show different pictures")),
        )
