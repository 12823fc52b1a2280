"""When a task is done, and when it can no longer be done: decided from where things truly are.

Every rule answers for one moment; `So101Env` declares success once a rule has held for `STEADY_STEPS` in a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.so101_layout import SIDES, Layout
from molmoact2.envs.so101_scene import PAN_AXIS_X_M, PLATE_HALF_HEIGHT_M, PLATE_RADIUS_M

STEADY_STEPS = 3
"""Control steps that a goal must hold: 0.2 s."""
LIFTED_M = 0.040
"""Pick: the named cube's lowest point is this high."""
WRONG_LIFTED_M = 0.025
"""Any other cube whose lowest point is this high was picked up by mistake."""
PUSHED_M = 0.060
"""Push: the named cube has moved this far towards the named side."""
WRONG_MOVED_M = 0.040
"""Push: any other cube that has moved this far was pushed by mistake."""
ON_TABLE_M = 0.010
"""Push: the named cube's lowest point is no higher than this."""
PLATE_MARGIN_M = 0.005
"""Plate: the cube's centre is at least this far inside the rim."""
PLATE_HEIGHT_M = 0.004
"""Plate: the cube's lowest point is within this of the plate's top."""
STILL_M_PER_S = 0.05
WORKSPACE_RADIUS_M = 0.40
"""A cube farther than this from the shoulder's axis is out of reach for good."""
BELOW_TABLE_M = -0.010


@dataclass(frozen=True, kw_only=True)
class CubeState:
    """One cube at one moment, in the robot's base frame."""

    position_m: NDArray[np.float64]
    """[3] centre."""
    lowest_m: float
    """Height of its lowest corner above the table."""
    speed_m_per_s: float
    touched: bool
    """Whether the gripper touches it."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a rule says about one moment."""

    achieved: bool
    failure: str | None = None


Cubes = Mapping[str, CubeState]
Rule = Callable[[Layout, Cubes, Cubes], Verdict]
"""(layout, cubes at the start, cubes now) -> verdict. Colours are keys."""


def judge(layout: Layout, start: Cubes, now: Cubes) -> Verdict:
    """What the layout's task says about the cubes as they are now."""
    position = now[layout.target].position_m
    distance_m = np.hypot(position[0] - PAN_AXIS_X_M, position[1])
    if distance_m > WORKSPACE_RADIUS_M or position[2] < BELOW_TABLE_M:
        return Verdict(achieved=False, failure="dropped off the table")
    return RULES[layout.task](layout, start, now)


def others(layout: Layout) -> list[str]:
    """Colours of the cubes that the instruction does not name."""
    return [colour for colour in layout.cubes if colour != layout.target]


def judge_pick(layout: Layout, _start: Cubes, now: Cubes) -> Verdict:
    """The named cube hangs in the air."""
    if any(now[colour].lowest_m > WRONG_LIFTED_M for colour in others(layout)):
        return Verdict(achieved=False, failure="wrong object")
    return Verdict(achieved=now[layout.target].lowest_m > LIFTED_M)


def judge_plate(layout: Layout, _start: Cubes, now: Cubes) -> Verdict:
    """The named cube rests on the plate and the gripper has let go of it."""
    wrong = (now[colour] for colour in others(layout))
    if any(cube.lowest_m > WRONG_LIFTED_M or rests_on_plate(layout, cube) for cube in wrong):
        return Verdict(achieved=False, failure="wrong object")
    cube = now[layout.target]
    return Verdict(achieved=rests_on_plate(layout, cube) and not cube.touched)


def rests_on_plate(layout: Layout, cube: CubeState) -> bool:
    """Whether a cube lies still on the plate, its centre well inside the rim."""
    assert layout.plate_m is not None
    from_centre_m = np.hypot(*(cube.position_m[:2] - layout.plate_m))
    above_plate_m = cube.lowest_m - 2 * PLATE_HALF_HEIGHT_M
    return bool(
        from_centre_m < PLATE_RADIUS_M - PLATE_MARGIN_M
        and abs(above_plate_m) < PLATE_HEIGHT_M
        and cube.speed_m_per_s < STILL_M_PER_S
    )


def judge_push(layout: Layout, start: Cubes, now: Cubes) -> Verdict:
    """The named cube has slid far enough to the named side, and the others are about where they were."""
    for colour in others(layout):
        if np.linalg.norm(now[colour].position_m - start[colour].position_m) > WRONG_MOVED_M:
            return Verdict(achieved=False, failure="wrong object")
    cube = now[layout.target]
    moved_m = SIDES[layout.side] * (cube.position_m[1] - start[layout.target].position_m[1])
    return Verdict(achieved=bool(moved_m > PUSHED_M) and cube.lowest_m < ON_TABLE_M)


def instruction(layout: Layout) -> str:
    """The task in words."""
    words = {
        "pick": f"pick up the {layout.target} cube",
        "plate": f"put the {layout.target} cube on the plate",
        "push": f"push the {layout.target} cube to the {layout.side}",
    }
    return words[layout.task]


RULES: dict[str, Rule] = {"pick": judge_pick, "plate": judge_plate, "push": judge_push}
