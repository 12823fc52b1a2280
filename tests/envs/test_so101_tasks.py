from dataclasses import replace

import numpy as np
import pytest

from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_layout import SIDES, Layout, draw_layout
from molmoact2.envs.so101_scene import PLATE_HALF_HEIGHT_M
from molmoact2.envs.so101_tasks import STEADY_STEPS, Cubes, CubeState, instruction, judge, others


def standing(layout: Layout) -> dict[str, CubeState]:
    """Cubes as the layout puts them."""
    return {
        colour: CubeState(
            position_m=np.array((cube.x_m, cube.y_m, cube.half_m)), lowest_m=0.0, speed_m_per_s=0.0, touched=False
        )
        for colour, cube in layout.cubes.items()
    }


def moved(cubes: Cubes, colour: str, by_m: tuple[float, float, float], **changes: object) -> dict[str, CubeState]:
    """The cubes, one of them moved."""
    cube = cubes[colour]
    moved_cube = replace(cube, position_m=cube.position_m + by_m, lowest_m=cube.lowest_m + by_m[2], **changes)
    return {**cubes, colour: moved_cube}


def on_plate(layout: Layout, cubes: Cubes, colour: str, **changes: object) -> dict[str, CubeState]:
    """The cubes, one of them on the plate."""
    assert layout.plate_m is not None
    shift = (*(np.asarray(layout.plate_m) - cubes[colour].position_m[:2]), 2 * PLATE_HALF_HEIGHT_M)
    return moved(cubes, colour, shift, **changes)


@pytest.mark.parametrize("task", ["pick", "plate", "push"])
def test_nothing_is_achieved_at_the_start(task: str) -> None:
    layout = draw_layout(0, task)
    start = standing(layout)
    verdict = judge(layout, start, start)
    assert not verdict.achieved
    assert verdict.failure is None


@pytest.mark.parametrize("task", ["pick", "plate", "push"])
def test_a_cube_out_of_reach_ends_the_episode(task: str) -> None:
    layout = draw_layout(1, task)
    start = standing(layout)
    for shift in ((0.4, 0.0, 0.0), (0.0, 0.0, -0.05)):
        assert judge(layout, start, moved(start, layout.target, shift)).failure == "dropped off the table"


def test_pick_is_the_named_cube_in_the_air() -> None:
    layout = draw_layout(0, "pick")
    start = standing(layout)
    assert not judge(layout, start, moved(start, layout.target, (0, 0, 0.035))).achieved
    assert judge(layout, start, moved(start, layout.target, (0, 0, 0.045))).achieved
    wrong = others(layout)[0]
    assert judge(layout, start, moved(start, wrong, (0, 0, 0.02))).failure is None
    assert judge(layout, start, moved(start, wrong, (0, 0, 0.03))).failure == "wrong object"


def test_plate_is_the_named_cube_left_on_the_plate() -> None:
    layout = draw_layout(0, "plate")
    start = standing(layout)
    target, wrong = layout.target, others(layout)[0]
    assert judge(layout, start, on_plate(layout, start, target)).achieved
    assert not judge(layout, start, on_plate(layout, start, target, touched=True)).achieved
    assert not judge(layout, start, on_plate(layout, start, target, speed_m_per_s=0.2)).achieved
    on_rim = moved(on_plate(layout, start, target), target, (0.047, 0, 0))
    assert not judge(layout, start, on_rim).achieved
    above = moved(on_plate(layout, start, target), target, (0, 0, 0.01))
    assert not judge(layout, start, above).achieved
    assert judge(layout, start, on_plate(layout, start, wrong)).failure == "wrong object"


@pytest.mark.parametrize("side", SIDES)
def test_push_is_the_named_cube_slid_to_the_named_side(side: str) -> None:
    layout = replace(draw_layout(0, "push"), side=side)
    start = standing(layout)
    far = 0.065 * SIDES[side]
    assert judge(layout, start, moved(start, layout.target, (0, far, 0))).achieved
    assert not judge(layout, start, moved(start, layout.target, (0, -far, 0))).achieved
    assert not judge(layout, start, moved(start, layout.target, (0.065, 0, 0))).achieved
    assert not judge(layout, start, moved(start, layout.target, (0, far, 0.03))).achieved
    wrong = others(layout)[0]
    assert judge(layout, start, moved(start, wrong, (0, 0.03, 0))).failure is None
    assert judge(layout, start, moved(start, wrong, (0, 0.05, 0))).failure == "wrong object"


def test_left_is_the_robots_left(so101: So101Env) -> None:
    so101.reset(seed=0, task="push")
    start = so101.joint_state()
    so101.step(start + np.array((-20, 0, 0, 0, 0, 0)))
    assert SIDES["left"] * so101.data.site("pinch").xpos[1] > 0.005


def test_instructions_say_what_to_do() -> None:
    layout = draw_layout(0, "push")
    assert instruction(replace(layout, target="blue", side="left")) == "push the blue cube to the left"
    assert instruction(replace(layout, task="pick", target="red")) == "pick up the red cube"
    assert instruction(replace(layout, task="plate", target="green")) == "put the green cube on the plate"


def test_a_goal_must_hold_for_a_while(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    raise_cube(so101, so101.scene.target, 0.05)
    outcomes = [so101.judge() for _ in range(STEADY_STEPS)]
    assert [outcome.success for outcome in outcomes] == [False] * (STEADY_STEPS - 1) + [True]
    so101.reset(seed=0, task="pick")
    raise_cube(so101, so101.scene.target, 0.05)
    assert not so101.judge().success


def test_the_simulator_reports_a_wrong_cube(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    raise_cube(so101, others(so101.scene)[0], 0.05)
    outcome = so101.judge()
    assert outcome.failure == "wrong object"
    assert outcome.done
    assert not outcome.success


def raise_cube(environment: So101Env, colour: str, by_m: float) -> None:
    """Lift a cube in the simulator, by hand."""
    environment.data.joint(colour).qpos[2] += by_m
    environment.forward()
