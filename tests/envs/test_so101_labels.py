import math

import numpy as np
import pytest

from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_layout import TASKS

CHANNEL = {"red cube": 0, "green cube": 1, "blue cube": 2}


def shows(image: np.ndarray, u: float, v: float, channel: int) -> bool:
    """Whether the pixel at (u, v) is clearly of one primary colour."""
    pixel = image[int(v), int(u)].astype(float)
    return bool(pixel[channel] > 1.5 * np.delete(pixel, channel).max())


@pytest.mark.parametrize("task", TASKS)
def test_the_pixel_of_a_cube_has_its_colour(so101: So101Env, task: str) -> None:
    for seed in range(6):
        so101.reset(seed=seed, task=task)
        image = so101.observe().images["front"]
        for point in so101.scene_points():
            if point.name in CHANNEL:
                pixel = point.pixels["front"]
                assert pixel.inside
                assert shows(image, pixel.u, pixel.v, CHANNEL[point.name]), (seed, point)


def test_the_pixel_of_a_held_cube_has_its_colour_in_the_wrist_view(so101: So101Env) -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for seed in range(30):
        so101.reset(seed=seed, task="pick")
        so101.scatter(rng)
        held = [colour for colour, cube in so101.cubes().items() if cube.touched]
        for point in so101.scene_points():
            if point.name.removesuffix(" cube") in held:
                pixel = point.pixels["wrist"]
                assert shows(so101.observe().images["wrist"], pixel.u, pixel.v, CHANNEL[point.name])
                seen += 1
    assert seen >= 2


def test_every_object_is_named_once_and_placed_truly(so101: So101Env) -> None:
    so101.reset(seed=1, task="plate")
    points = {point.name: point for point in so101.scene_points()}
    assert set(points) == {*(f"{colour} cube" for colour in so101.scene.cubes), "plate", "gripper"}
    np.testing.assert_allclose(points["plate"].position_m[:2], so101.scene.plate_m)
    for colour, cube in so101.scene.cubes.items():
        np.testing.assert_allclose(points[f"{colour} cube"].position_m, (cube.x_m, cube.y_m, cube.half_m))


def test_pixels_scale_with_the_image(so101: So101Env) -> None:
    large = So101Env(image_size=(256, 512), cameras=("front",))
    so101.reset(seed=1, task="pick")
    large.reset(seed=1, task="pick")
    for small_point, large_point in zip(so101.scene_points(), large.scene_points(), strict=True):
        small, big = small_point.pixels["front"], large_point.pixels["front"]
        assert big.v == pytest.approx(2 * small.v)
        assert big.u - 256 == pytest.approx(2 * (small.u - 64))
        assert set(large_point.pixels) == {"front"}
    large.close()


def test_a_point_behind_a_camera_is_not_inside(so101: So101Env) -> None:
    so101.reset(seed=1, task="pick")
    target = so101.scene.target
    so101.data.joint(target).qpos[:3] = (2.0, 0.0, 1.5)
    so101.forward()
    pixel = next(p for p in so101.scene_points() if p.name == f"{target} cube").pixels["front"]
    assert not pixel.inside
    assert math.isnan(pixel.u)


def test_scattered_scenes_vary_and_repeat(so101: So101Env) -> None:
    states = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        so101.reset(seed=0, task="pick")
        drawn = []
        for _ in range(20):
            so101.scatter(rng)
            drawn.append(so101.joint_state())
        states.append(np.array(drawn))
    np.testing.assert_array_equal(*states)
    assert (states[0].std(axis=0) > 3).all()


def test_scattered_grippers_stay_above_the_table(so101: So101Env) -> None:
    rng = np.random.default_rng(1)
    for seed in range(40):
        so101.reset(seed=seed, task="pick")
        so101.scatter(rng)
        assert so101.data.site("pinch").xpos[2] > 0.0
        assert all(cube.lowest_m > -0.005 for cube in so101.cubes().values())
