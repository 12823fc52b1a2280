"""Checks of what cameras show: views that have changed places, and red that has with blue.

How far the numbers can be trusted was tried on recordings of the simulated arm: docs/doctor.md has it.
"""

import itertools
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.finding import Finding, first, ok, problem, unchecked, warning
from molmoact2.robots.doctor.sample import View

LOOK = "look at the pictures yourself (--picture), or give a recording: --reference DATASET"
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
    """Each camera shows what its name says: as in the recording, or by how it moves with the arm."""
    references = {name: known for name in case.sample.views if (known := case.reference_view(name))}
    roles = set() if case.embodiment is None else set(case.embodiment.camera_roles)
    match len(references) >= 2, roles == {"scene", "wrist"}:
        case True, _:
            yield from swapped_by_reference(case.sample.views, references)
        case _, True:
            yield swapped_by_motion(case)
        case _:
            yield unchecked(
                "swapped views", "not to be told for these cameras", "give a recording: --reference DATASET"
            )


def swapped_by_reference(views: Mapping[str, View], references: Mapping[str, View]) -> Iterable[Finding]:
    """Compare what each camera shows with what it and the others showed in the recording."""
    for one, other in itertools.combinations(references, 2):
        straight = (likeness(views[one], references[one]) + likeness(views[other], references[other])) / 2
        crossed = (likeness(views[one], references[other]) + likeness(views[other], references[one])) / 2
        seen = f"{one} and {other}: likeness to the recording {straight:.2f}, with names exchanged {crossed:.2f}"
        yield first(
            (
                crossed > max(straight, 0.0) + CERTAIN,
                problem("swapped views", seen, "the policy takes one view for the other", "exchange their devices"),
            ),
            (straight > crossed + CERTAIN, ok("swapped views", seen)),
            (True, unchecked("swapped views", f"{seen}: too close to tell", "look at the pictures: --picture")),
        )


def swapped_by_motion(case: Case) -> Finding:
    """While the arm moves, most of what a camera beside it shows stands still, and most of what its own shows moves."""
    assert case.embodiment is not None
    roles = dict(zip(case.embodiment.cameras, case.embodiment.camera_roles, strict=False))
    still: dict[str, list[float]] = {"scene": [], "wrist": []}
    for name in [name for name, known in case.given_cameras.items() if known in roles]:
        still[roles[case.given_cameras[name]]].append(still_share(case.sample.views[name]))
    missing = [role for role, shares in still.items() if not shares]
    if missing or not case.has_joints or not case.arm_moved:
        reason = f"there is no {missing[0]} view" if missing else "the arm did not move"
        return unchecked("swapped views", f"{reason}, so it cannot be seen which camera moves with it", LOOK)
    scene, wrist = np.mean(still["scene"]), np.mean(still["wrist"])
    seen = f"while the arm moves, {100 * scene:.0f} % of scene views and {100 * wrist:.0f} % of wrist views stand still"
    return first(
        (
            wrist > scene + STILLER,
            warning(
                "swapped views",
                seen,
                "the view that moves with the arm is the one called a scene: they are probably exchanged",
                "look at the pictures (--picture), and exchange the devices of the two names",
            ),
        ),
        (True, ok("swapped views", seen)),
    )


def colour_order(case: Case, view: View) -> Finding:
    """Red comes first. This is a suspicion at most."""
    red, _, blue = view.picture.reshape(-1, 3).mean(axis=0)
    reference = case.reference_view(view.name)
    warmth = 0.0 if reference is None else colour_likeness(view, reference)
    seen = f"{view.name}: mean red {red:.0f}, mean blue {blue:.0f}"
    return first(
        (
            warmth < OTHER_COLOURS,
            warning(
                "colour order",
                f"{seen}; what is red in the recording is blue here (likeness {warmth:.2f})",
                "red and blue are probably exchanged, and the policy sees other colours than it learned",
                "exchange red and blue: OpenCV gives blue first",
            ),
        ),
        (
            reference is None and blue > BLUE * red,
            warning(
                "colour order",
                seen,
                "rooms, wood and skin are redder than they are blue: red and blue may be exchanged",
                "look at the picture (--picture); OpenCV gives blue first",
            ),
        ),
        (True, ok("colour order", seen)),
    )


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
