"""Checks of what cameras show: views that have changed places, and red that has with blue.

How far the numbers can be trusted was tried on recordings of the simulated arm: docs/doctor.md has it.
"""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.finding import Finding, ok, problem, unchecked, warning
from molmoact2.robots.doctor.sample import View

STILL_STD = 6.0
"""Grey levels: a pixel that varies less over time shows the room, not the arm; a camera's noise is less than that."""
STILLER = 0.1
"""By how much more of a wrist's view than of a scene's has to stand still for the two to be suspected of each other."""
CERTAIN = 0.05
"""By how much a likeness has to be the greater one to be believed."""
OTHER_COLOURS = -0.3
"""Likeness of colours below which red and blue are suspected of each other."""
BLUE = 1.4
"""How much more blue than red a whole picture of a room hardly ever is."""


def swapped_views(case: Case) -> Iterable[Finding]:
    """Each camera shows what its name says: as in the training data, or by how it moves with the arm."""
    views = case.sample.views
    references = {name: reference for name in views if (reference := case.reference_view(name))}
    if len(references) >= 2:
        yield from swapped_by_reference(views, references)
    elif case.embodiment is not None and set(case.embodiment.camera_roles) == {"scene", "wrist"}:
        yield from swapped_by_motion(case)
    else:
        yield unchecked("swapped views", "not to be told for these cameras", "give a recording: --reference DATASET")


def swapped_by_reference(views: Mapping[str, View], references: Mapping[str, View]) -> Iterable[Finding]:
    """Compare what each camera shows with what it and the others showed in the training data."""
    for one, other in itertools.combinations(references, 2):
        straight = (likeness(views[one], references[one]) + likeness(views[other], references[other])) / 2
        crossed = (likeness(views[one], references[other]) + likeness(views[other], references[one])) / 2
        seen = f"{one} and {other}: likeness to the recording {straight:.2f}, with names exchanged {crossed:.2f}"
        if crossed > max(straight, 0.0) + CERTAIN:
            yield problem("swapped views", seen, "the policy takes one view for the other", "exchange their devices")
        elif straight > crossed + CERTAIN:
            yield ok("swapped views", seen)
        else:
            yield unchecked("swapped views", f"{seen}: too close to tell", "look at the pictures yourself: --picture")


def swapped_by_motion(case: Case) -> Iterable[Finding]:
    """While the arm moves, most of what a camera beside it shows stands still, and most of what its own shows moves."""
    assert case.embodiment is not None
    roles = dict(zip(case.embodiment.cameras, case.embodiment.camera_roles, strict=False))
    still: dict[str, list[float]] = {"scene": [], "wrist": []}
    for name, known in case.given_cameras.items():
        if known in roles:
            still[roles[known]].append(still_share(case.sample.views[name]))
    if not all(still.values()) or not case.has_joints or not case.arm_moved:
        yield unchecked(
            "swapped views",
            "the arm did not move, so it cannot be seen which camera moves with it",
            "look at the pictures yourself (--picture), or give a recording: --reference DATASET",
        )
        return
    scene, wrist = np.mean(still["scene"]), np.mean(still["wrist"])
    seen = f"while the arm moves, {100 * scene:.0f} % of scene views and {100 * wrist:.0f} % of wrist views stand still"
    if wrist > scene + STILLER:
        yield warning(
            "swapped views",
            seen,
            "the view that moves with the arm is the one called a scene: they are probably exchanged",
            "look at the pictures (--picture), and exchange the devices of the two names",
        )
    else:
        yield ok("swapped views", seen)


def colour_order(case: Case) -> Iterable[Finding]:
    """Red comes first. Without a recording to compare with this is a suspicion at most."""
    for name, view in case.sample.views.items():
        red, _, blue = view.picture.reshape(-1, 3).mean(axis=0)
        reference = case.reference_view(name)
        warmth = 0.0 if reference is None else colour_likeness(view, reference)
        seen = f"{name}: mean red {red:.0f}, mean blue {blue:.0f}"
        if warmth < OTHER_COLOURS:
            yield warning(
                "colour order",
                f"{seen}; what is red in the recording is blue here (likeness {warmth:.2f})",
                "red and blue are probably exchanged, and the policy sees other colours than it learned",
                "exchange red and blue: OpenCV gives blue first",
            )
        elif reference is None and blue > BLUE * red:
            yield warning(
                "colour order",
                seen,
                "rooms, wood and skin are redder than they are blue: red and blue may be exchanged",
                "look at the picture (--picture); OpenCV gives blue first",
            )
        else:
            yield ok("colour order", seen)


def likeness(one: View, other: View) -> float:
    """How alike two views' mean pictures are in light and colour: a mean of two correlations, in [-1, 1]."""
    return (correlation(mean_picture(one), mean_picture(other)) + colour_likeness(one, other)) / 2


def colour_likeness(one: View, other: View) -> float:
    """Correlation of where two views are redder than blue, in [-1, 1]."""
    a, b = mean_picture(one), mean_picture(other)
    return correlation(a[..., 0] - a[..., 2], b[..., 0] - b[..., 2])


def still_share(view: View) -> float:
    """The share of a view's pixels that do not change over time, but for noise."""
    return float((view.thumbnails.std(axis=0).mean(axis=-1) < STILL_STD).mean())


def mean_picture(view: View) -> NDArray[np.float64]:
    """[16, 16, 3] the mean of all thumbnails, coarsely, so that pictures of other sizes can be compared."""
    mean = view.thumbnails.mean(axis=0)
    rows, columns = (np.linspace(0, size, 17).astype(int) for size in mean.shape[:2])
    return np.array(
        [[mean[a : max(b, a + 1), c : max(d, c + 1)].mean(axis=(0, 1)) for c, d in itertools.pairwise(columns)]
         for a, b in itertools.pairwise(rows)]
    )  # fmt: skip


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two pictures of one shape; 0 where one of them is flat."""
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
