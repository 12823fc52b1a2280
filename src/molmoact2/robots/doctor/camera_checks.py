"""Checks of cameras: names, order, size, rate, and whether each is alive."""

import itertools
from collections.abc import Iterable

import numpy as np

from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.finding import Finding, ok, problem, unchecked, warning

SMALLEST_SIDE = 120
"""Pixels, below which too little can be seen; the released networks look at squares of 378."""
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
"""Frames from which on a camera can be called frozen."""
LIVELY_SHARE = 0.1
"""Of the frames of a camera that lives, at least so many differ from the one before."""


def names_of_cameras(case: Case) -> Iterable[Finding]:
    """The robot has the cameras that the policy expects, by their names."""
    wanted, given = case.expected_cameras, case.given_cameras
    if not wanted:
        yield unchecked(
            "camera names",
            f"this checkpoint takes any cameras, in the order given: {', '.join(given)}",
            "give them in the order of the data that it was trained on",
        )
        return
    missing = [name for name in wanted if name not in given.values()]
    extra = [name for name, known in given.items() if known not in wanted]
    if missing:
        rename = f"rename {extra[0]!r} to {missing[0]!r}, if it is that view" if extra else "connect it"
        yield problem(
            "camera names",
            f"the policy expects {', '.join(wanted)}; of the robot's {', '.join(given) or 'none'} it misses "
            f"{', '.join(missing)}",
            "a policy without one of its views refuses, or guesses",
            f"in the robot's settings, {rename}",
        )
    else:
        renamed = [f"{name} is {known}" for name, known in given.items() if name != known and known in wanted]
        yield ok("camera names", ", ".join(wanted) + (f" ({', '.join(renamed)})" if renamed else ""))
    if extra and not missing:
        yield warning(
            "camera names",
            f"the policy does not know {', '.join(extra)}",
            "it is not sent, and takes its share of the USB bus",
            "leave it out of the robot's settings",
        )


def sizes(case: Case) -> Iterable[Finding]:
    """Pictures are large enough, upright, and of the shape of the training data's."""
    for name, view in case.sample.views.items():
        height, width = view.picture.shape[:2]
        seen = f"{name}: {width} x {height} pixels"
        known = case.reference_view(name)
        if len(view.sizes) > 1:
            all_sizes = ", ".join(f"{each_width} x {each_height}" for each_height, each_width in view.sizes)
            yield problem("image size", f"{name}: {all_sizes} by turns", "a camera keeps its size", "set its size")
        elif min(height, width) < SMALLEST_SIDE:
            yield warning(
                "image size",
                seen,
                "a gripper and what it reaches for are a few pixels there; the released networks look at 378 x 378",
                "set the camera to 640 x 480 or 640 x 360",
            )
        elif height > width and known is None:
            yield warning(
                "image size",
                f"{seen}, higher than wide",
                "training pictures are hardly ever upright formats: the camera may be turned by 90 degrees",
                "look at the picture (--picture), and turn the camera or the picture",
            )
        elif (
            known is not None
            and abs(np.log((width / height) / (known.picture.shape[1] / known.picture.shape[0]))) > 0.1
        ):
            other = f"{known.picture.shape[1]} x {known.picture.shape[0]}"
            yield warning(
                "image size",
                f"{seen}; the training data have {other}",
                "pictures are stretched to a square, so another shape makes other proportions",
                f"set the camera to the proportions of {other}",
            )
        else:
            yield ok("image size", seen)


def frame_rates(case: Case) -> Iterable[Finding]:
    """Each camera gives new frames as often as the policy acts, evenly, and without delay."""
    if case.sample.kind == "simulated":
        yield ok("frame rate", "a simulated camera renders when it is looked at")
        return
    for name, view in case.sample.views.items():
        periods = np.diff(view.times_s)
        if len(periods) < 2:
            continue  # `frozen_views` says so
        rate_hz, longest_s, age_s = 1 / np.median(periods), periods.max(), float(np.median(view.ages_s))
        seen = (
            f"{name}: {rate_hz:.1f} new frames a second, at most {1000 * longest_s:.0f} ms apart, "
            f"{1000 * age_s:.0f} ms old"
        )
        if rate_hz < SLOW * case.card.control_hz:
            yield warning(
                "frame rate",
                f"{seen}; the policy acts at {case.card.control_hz:g} Hz",
                "it decides on pictures that are older than they seem",
                "more light (a long exposure slows a camera down), a smaller size, or a USB port of its own",
            )
        elif longest_s > UNEVEN * np.median(periods):
            yield warning("frame rate", seen, "frames get lost", "another cable, or a USB port of its own")
        elif age_s > OLD_S:
            yield warning(
                "frame rate", seen, "the arm has moved on when the policy sees it", "a camera without a queue"
            )
        else:
            yield ok("frame rate", seen)


def dead_views(case: Case) -> Iterable[Finding]:
    """Each picture shows something."""
    for name, view in case.sample.views.items():
        spread, level = float(view.picture.std()), float(view.picture.mean())
        if spread < DEAD_STD:
            yield problem(
                "dead views",
                f"{name}: all pixels are about {level:.0f} of 255 (spread {spread:.2f})",
                "the policy is blind there",
                "take off the lens cap, look at the cable, and see that nothing else uses the camera",
            )
        else:
            yield ok("dead views", f"{name}: pixels spread by {spread:.0f} grey levels around {level:.0f}")


def frozen_views(case: Case) -> Iterable[Finding]:
    """Each picture changes with time. A sensor's noise alone makes it change; a simulated one has none."""
    arm_moved = case.has_joints and case.arm_moved
    for name, view in case.sample.views.items():
        frames, changed = len(view.times_s), int((view.changes > 0).sum())
        seen = f"{name}: {changed} of {max(0, frames - 1)} frames differ from the one before"
        if frames < 2 and case.sample.seconds > 1:
            yield problem(
                "frozen views",
                f"{name}: one frame in {case.sample.seconds:.1f} s",
                "a frozen picture is a perfectly good picture, and the policy acts on it",
                "reconnect the camera",
            )
        elif changed >= LIVELY_SHARE * frames or frames <= FROZEN_FRAMES:
            yield ok("frozen views", seen)
        elif case.sample.kind == "simulated" and not arm_moved:
            yield unchecked("frozen views", f"{seen}; so it is in simulation, while nothing moves")
        else:
            yield problem(
                "frozen views",
                f"{seen}{', while the arm moved' if arm_moved else ''}",
                "even a picture of a wall trembles; this one stands still, and the policy would act on it",
                "reconnect the camera, and restart what serves it",
            )


def same_views(case: Case) -> Iterable[Finding]:
    """No two cameras show the same picture."""
    for (one, first), (other, second) in itertools.combinations(case.sample.views.items(), 2):
        a, b = first.thumbnails[-1].astype(np.float64), second.thumbnails[-1].astype(np.float64)
        difference = np.abs(a - b).mean() if a.shape == b.shape else np.inf
        if difference < SAME_LEVELS:
            yield problem(
                "same view twice",
                f"{one} and {other} differ by {difference:.1f} grey levels",
                "two names mean one camera: a view is missing, and one counts double",
                "give each name its own device in the robot's settings",
            )
        else:
            yield ok("same view twice", f"{one} and {other} show different pictures")
