import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs import make
from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_layout import (
    CUBE_HALF_M,
    CUBE_SPACING_M,
    PLATE_SPACING_M,
    REACH_M,
    SIDES,
    TASKS,
    Cube,
    draw_layout,
)
from molmoact2.envs.so101_scene import PAN_AXIS_X_M

FINGERPRINT = """
import hashlib
from molmoact2.envs import make
environment = make("so101")
environment.reset(seed=11, task="plate")
observation = environment.observe()
environment.close()
data = observation.state.tobytes() + observation.images["front"].tobytes() + observation.images["wrist"].tobytes()
print(hashlib.sha256(data).hexdigest())
"""


def test_the_same_seed_and_task_give_the_same_pictures(so101: So101Env) -> None:
    so101.reset(seed=3, task="pick")
    first = so101.observe()
    so101.reset(seed=4, task="push")
    other = so101.observe()
    so101.reset(seed=3, task="pick")
    again = so101.observe()
    assert first.instruction == again.instruction
    np.testing.assert_array_equal(first.state, again.state)
    for camera in SO101_TABLETOP.cameras:
        np.testing.assert_array_equal(first.images[camera], again.images[camera])
        assert (first.images[camera] != other.images[camera]).any()


def test_the_same_seed_gives_the_same_scene_in_another_process(so101: So101Env) -> None:
    so101.reset(seed=11, task="plate")
    observation = so101.observe()
    data = observation.state.tobytes() + b"".join(observation.images[c].tobytes() for c in ("front", "wrist"))
    printed = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == hashlib.sha256(data).hexdigest()


def test_the_same_actions_give_the_same_motion(so101: So101Env) -> None:
    states = []
    for _ in range(2):
        so101.reset(seed=5, task="pick")
        target = so101.joint_state() + np.array((20, 15, -10, 5, 30, 40), dtype=np.float32)
        for _ in range(10):
            so101.step(target)
        states.append(so101.data.qpos.copy())
    np.testing.assert_array_equal(*states)


def test_observations_are_what_the_embodiment_says(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    observation = so101.observe()
    assert tuple(observation.images) == SO101_TABLETOP.cameras
    for image in observation.images.values():
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
    assert observation.state.shape == (len(SO101_TABLETOP.state_names),)
    assert so101.embodiment == SO101_TABLETOP.tag
    assert so101.control_hz == SO101_TABLETOP.control_hz
    physics_steps = 1 / so101.control_hz / so101.model.opt.timestep
    assert physics_steps == pytest.approx(round(physics_steps))


def test_images_are_not_overwritten_by_the_next_observation(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    first = so101.observe().images["front"]
    kept = first.copy()
    so101.reset(seed=1, task="pick")
    so101.observe()
    np.testing.assert_array_equal(first, kept)


def test_joints_follow_their_targets_in_robot_units(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    target = np.array((30.0, -50.0, 20.0, 60.0, 45.0, 80.0), dtype=np.float32)
    for _ in range(30):
        so101.step(target)
    np.testing.assert_allclose(so101.observe().state, target, atol=0.5)


def test_motors_clamp_targets_to_their_range(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    for _ in range(30):
        so101.step(np.array((500.0, -50.0, 20.0, 60.0, 45.0, 500.0)))
    assert so101.joint_state()[0] == pytest.approx(110, abs=1.5)
    assert so101.joint_state()[-1] == pytest.approx(100, abs=1.5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-95, 95), min_size=6, max_size=6))
def test_units_come_back(so101: So101Env, units: list[float]) -> None:
    np.testing.assert_allclose(so101.to_units(so101.to_radians(np.asarray(units))), units, atol=1e-3)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(5), r"6 numbers .*got shape \(5,\)"),
        (np.zeros((1, 6)), r"got shape \(1, 6\)"),
        (np.array((0, np.nan, 0, 0, 0, 0)), "shoulder_lift=nan"),
        (np.array((0, 0, 0, 0, 0, np.inf)), "gripper=inf"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(so101: So101Env, action: np.ndarray, message: str) -> None:
    so101.reset(seed=0, task="pick")
    before = so101.data.qpos.copy()
    with pytest.raises(ValueError, match=message):
        so101.step(action)
    np.testing.assert_array_equal(so101.data.qpos, before)


def test_wrong_names_and_sizes_are_refused(so101: So101Env) -> None:
    with pytest.raises(ValueError, match="Did you mean 'push'"):
        so101.reset(seed=0, task="psh")
    with pytest.raises(ValueError, match="non-negative"):
        so101.reset(seed=-1, task="pick")
    with pytest.raises(ValueError, match="Did you mean 'wrist'"):
        So101Env(cameras=("wirst",))
    with pytest.raises(ValueError, match="0 x 112"):
        So101Env(image_size=(0, 112))
    with pytest.raises(ValueError, match="Did you mean 'so101'"):
        make("so100")
    with pytest.raises(RuntimeError, match="reset"):
        So101Env().observe()


def test_pictures_for_people_have_any_size(so101: So101Env) -> None:
    so101.reset(seed=0, task="plate")
    before = so101.observe().images["front"]
    assert so101.render("overview", 90, 160).shape == (90, 160, 3)
    np.testing.assert_array_equal(so101.observe().images["front"], before)


@pytest.mark.parametrize("task", TASKS)
def test_layouts_leave_room(task: str) -> None:
    for seed in range(60):
        layout = draw_layout(seed, task)
        assert len(layout.cubes) in (2, 3)
        assert layout.target in layout.cubes
        assert layout.plate_m is not None or task != "plate"
        places = np.array([(cube.x_m, cube.y_m) for cube in layout.cubes.values()])
        reach = np.hypot(places[:, 0] - PAN_AXIS_X_M, places[:, 1])
        assert ((reach >= REACH_M[0]) & (reach <= REACH_M[1])).all()
        spread = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
        assert spread.min() > CUBE_SPACING_M
        assert all(CUBE_HALF_M[0] <= cube.half_m <= CUBE_HALF_M[1] for cube in layout.cubes.values())
        if layout.plate_m is not None:
            assert np.linalg.norm(places - layout.plate_m, axis=1).min() > PLATE_SPACING_M


def test_layouts_cover_colours_sides_and_numbers() -> None:
    layouts = [draw_layout(seed, "push") for seed in range(40)]
    assert {layout.target for layout in layouts} == {"red", "green", "blue"}
    assert {layout.side for layout in layouts} == set(SIDES)
    assert {len(layout.cubes) for layout in layouts} == {2, 3}
    assert {layout.plate_m is None for layout in layouts} == {True, False}


def test_a_layout_sets_the_model(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    for colour, cube in so101.scene.cubes.items():
        assert isinstance(cube, Cube)
        np.testing.assert_allclose(so101.model.geom(colour).size, cube.half_m)
        np.testing.assert_allclose(so101.cube(colour).position_m, (cube.x_m, cube.y_m, cube.half_m), atol=1e-9)
        assert so101.cube(colour).lowest_m == pytest.approx(0, abs=1e-9)


def test_a_scene_at_rest_stays_at_rest(so101: So101Env) -> None:
    so101.reset(seed=2, task="push")
    start, state = so101.cubes(), so101.joint_state()
    for _ in range(30):
        assert not so101.step(state).done
    np.testing.assert_allclose(so101.joint_state(), state, atol=0.3)
    for colour, cube in so101.cubes().items():
        np.testing.assert_allclose(cube.position_m, start[colour].position_m, atol=1e-3)
