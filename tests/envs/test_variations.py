"""Scenes unlike those of the recordings: graded, drawn from the seed, fair, and exactly nothing at magnitude 0."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.envs import make
from molmoact2.envs.labels import label_row
from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_distractors import SHAPES
from molmoact2.envs.so101_expert import So101Expert
from molmoact2.envs.so101_layout import (
    CUBE_REGION,
    CUBE_SPACING_M,
    PLATE_REGION,
    PLATE_SPACING_M,
    PUSH_REGION,
    SIDES,
    TASKS,
    Layout,
    draw_layout,
)
from molmoact2.envs.so101_regions import Region
from molmoact2.envs.so101_scene import COLOURS, FRONT_CAMERA, PAN_AXIS_X_M, PLATE_RADIUS_M, look_at, rolled
from molmoact2.envs.so101_variations import (
    CAMERA_ROLL_RAD,
    CAMERA_SHIFT_M,
    DISTRACTOR_GAP_M,
    FINGER_ROOM_M,
    draw_varied_layout,
)
from molmoact2.envs.variations import NOMINAL, Variations

NAMES = [field.name for field in fields(Variations)]
ALL = Variations(spatial=1, lighting=1, distractors=1, camera=1)


@pytest.fixture(scope="module")
def varied() -> Iterator[So101Env]:
    """An environment with everything varied."""
    environment = So101Env(variations=ALL)
    yield environment
    environment.close()


def flat(layout: Layout) -> str:
    return repr(layout)


# Words and magnitudes


def test_words_say_which_and_how_much() -> None:
    assert Variations.parse(["lighting=0.5", "camera"]) == Variations(lighting=0.5, camera=1.0)
    assert Variations.parse([]) == NOMINAL
    assert Variations.parse(["camera=1", "spatial=.25"]).active == {"spatial": 0.25, "camera": 1.0}
    assert Variations.parse(["camera=0"]).active == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lightning=1"], "Did you mean 'lighting'"),
        (["camera=much"], r"name=magnitude.*got 'camera=much'"),
        (["camera=1.5"], r"from 0 \(none\) to 1 \(hard\); got camera=1.5"),
        (["camera=-0.1"], "camera=-0.1"),
        (["camera=nan"], "camera=nan"),
        (["camera=0.1", "camera=0.2"], "given twice"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variations.parse(words)


# Regions

SQUARE = Region(low=(-1, -1), high=(1, 1), room_below=(1, 2), room_above=(3, 4))


@pytest.mark.parametrize(
    ("point", "outside"),
    [
        ((1.0, 0.0), (4.0, 0.0)),
        ((-1.0, 0.5), (-2.0, 0.5)),
        ((0.0, 0.5), (0.0, 2.0)),
        ((0.25, -0.5), (0.5, -1.5)),
        ((0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_places_outside_a_square_known_by_heart(point: tuple[float, float], outside: tuple[float, float]) -> None:
    np.testing.assert_allclose(SQUARE.outside(np.array(point)), outside)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([CUBE_REGION, PLATE_REGION, PUSH_REGION, SQUARE]))
def test_the_hardest_places_are_outside_and_the_others_on_the_way(seed: int, region: Region) -> None:
    inside, half, out = (region.draw(np.random.default_rng(seed), spatial) for spatial in (0.0, 0.5, 1.0))
    low, high = np.array(region.low), np.array(region.high)
    assert ((inside >= low) & (inside <= high)).all()
    beyond = np.maximum(low - out, out - high)
    room = np.where(out < low, region.room_below, region.room_above)
    assert ((beyond > 0) | np.isclose(beyond, 0)).sum() >= 1
    assert (beyond <= room + 1e-12).all()
    np.testing.assert_allclose(half, (inside + out) / 2)


def test_the_room_on_a_side_is_filled_evenly() -> None:
    rng = np.random.default_rng(0)
    points = np.array([SQUARE.draw(rng, 1.0) for _ in range(4000)])
    right = points[points[:, 0] > 1, 0]
    assert len(right) == pytest.approx(1000, rel=0.1)
    assert np.mean(right < 2.5) == pytest.approx(0.5, abs=0.05)


# Nothing at magnitude 0


def test_nominal_layouts_are_those_of_the_first_recordings() -> None:
    """Numbers written down before there were variations: places of the things, rounded, over ten seeds a task."""
    layouts = [draw_layout(seed, task) for task in TASKS for seed in (*range(8), 1_000_000, 1_000_001)]
    numbers = [
        (*((c.x_m, c.y_m, c.turn_rad, c.half_m, *c.rgb) for c in layout.cubes.values()), layout.plate_m or (), *looks)
        for layout in layouts
        for looks in [(layout.home_rad, layout.look.table_rgb, layout.look.lamp_rgb, layout.look.camera_shifts_m)]
    ]
    text = " ".join(f"{number:.9f}" for row in numbers for part in row for number in np.ravel(part))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "c8961c00fb53cff3"


@pytest.mark.parametrize("task", TASKS)
def test_no_variation_is_the_nominal_layout(task: str) -> None:
    for seed in range(50):
        assert flat(draw_varied_layout(seed, task, NOMINAL)) == flat(draw_layout(seed, task))


def test_no_variation_is_the_nominal_picture(so101: So101Env) -> None:
    """The environment's looks and moves are those of the layout alone, before and after, with or without zeros."""
    zeros = make("so101", variations=Variations(**dict.fromkeys(NAMES, 0.0)))
    for seed, task in enumerate(TASKS):
        so101.set_layout(draw_layout(seed, task))
        zeros.reset(seed=seed, task=task)
        for _ in range(3):
            first, second = so101.observe(), zeros.observe()
            np.testing.assert_array_equal(first.state, second.state)
            for camera in so101.cameras:
                np.testing.assert_array_equal(first.images[camera], second.images[camera])
            target = first.state + np.array((9, 5, -5, 5, 9, 9), np.float32)
            assert [so101.step(target) for _ in range(4)] == [zeros.step(target) for _ in range(4)]
    zeros.close()


def test_without_distractors_the_model_is_the_one_that_recorded() -> None:
    """Nine kinds of numbers of the model; the four cameras and lights that layouts write are not among them."""
    plain, lit = So101Env(), So101Env(variations=Variations(lighting=1, camera=1, spatial=1))
    assert (plain.model.nq, plain.model.nbody, plain.model.ngeom) == (lit.model.nq, lit.model.nbody, lit.model.ngeom)
    assert not SHAPES.keys() & {plain.model.body(index).name for index in range(plain.model.nbody)}
    for environment in (plain, lit):
        environment.close()


# Graded, and each on its own


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_scene_and_another_gives_another(name: str) -> None:
    variations = Variations(**{name: 0.7})
    assert flat(draw_varied_layout(5, "pick", variations)) == flat(draw_varied_layout(5, "pick", variations))
    first, second = (draw_varied_layout(seed, "pick", variations) for seed in (5, 6))
    assert flat(first) != flat(second)


def test_a_variation_changes_its_own_part_only() -> None:
    nominal = draw_layout(7, "plate")
    lit = draw_varied_layout(7, "plate", Variations(lighting=1))
    assert flat(replace(lit, look=nominal.look)) == flat(nominal)
    np.testing.assert_array_equal(lit.look.camera_shifts_m, nominal.look.camera_shifts_m)
    jolted = draw_varied_layout(7, "plate", Variations(camera=1))
    cameras_back = replace(jolted.look, camera_shifts_m=nominal.look.camera_shifts_m, front_roll_rad=0.0)
    assert flat(replace(jolted, look=cameras_back)) == flat(nominal)
    littered = draw_varied_layout(7, "plate", Variations(distractors=1))
    assert flat(replace(littered, distractors=())) == flat(nominal)
    moved = draw_varied_layout(7, "plate", Variations(spatial=1))
    assert flat(moved.look) == flat(nominal.look)
    assert (moved.target, moved.side, list(moved.cubes)) == (nominal.target, nominal.side, list(nominal.cubes))


def test_light_and_camera_are_the_same_whatever_else_varies() -> None:
    alone, together = (
        draw_varied_layout(3, "push", Variations(lighting=0.5, camera=0.5)),
        draw_varied_layout(3, "push", Variations(lighting=0.5, camera=0.5, spatial=1, distractors=1)),
    )
    assert flat(alone.look) == flat(together.look)


def test_half_a_variation_is_half_the_way() -> None:
    looks = [draw_varied_layout(4, "pick", Variations(lighting=m, camera=m)).look for m in (0.0, 0.5, 1.0)]
    for name in ("table_rgb", "lamp_position_m", "lamp_rgb", "ambient", "headlight", "room_rgb", "camera_shifts_m"):
        here, half, there = (np.array(vars(look)[name]) for look in looks)
        np.testing.assert_allclose(half, (here + there) / 2, atol=1e-12)
        assert (here != there).any()


@pytest.mark.parametrize("task", TASKS)
def test_fewer_distractors_are_the_first_of_more(task: str) -> None:
    layouts = [draw_varied_layout(8, task, Variations(distractors=m)).distractors for m in (0.01, 0.34, 0.5, 1.0)]
    assert [len(distractors) for distractors in layouts] == [1, 3, 3, 6]
    assert all(distractors == layouts[-1][: len(distractors)] for distractors in layouts)


# Fair


@pytest.mark.parametrize("task", TASKS)
def test_shifted_things_are_outside_their_region_and_apart(task: str) -> None:
    for seed in range(60):
        layout = draw_varied_layout(seed, task, Variations(spatial=1))
        places = np.array([(cube.x_m, cube.y_m) for cube in layout.cubes.values()])
        for colour, (x, y) in zip(layout.cubes, places, strict=True):
            polar = np.array((math.hypot(x - PAN_AXIS_X_M, y), math.atan2(y, x - PAN_AXIS_X_M)))
            is_pushed = task == "push" and colour == layout.target
            region, point = (CUBE_REGION, polar)
            if is_pushed:
                region, point = PUSH_REGION, np.array((x - PAN_AXIS_X_M, SIDES[layout.side] * y))
            assert ((point <= region.low) | (point >= region.high)).any()
        spread = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(places), 1)]
        assert spread.min() > CUBE_SPACING_M
        if layout.plate_m is not None:
            assert np.linalg.norm(places - layout.plate_m, axis=1).min() > PLATE_SPACING_M


@pytest.mark.parametrize("task", TASKS)
def test_distractors_are_in_the_way_of_nothing(task: str) -> None:
    for seed in range(60):
        layout = draw_varied_layout(seed, task, Variations(distractors=1, spatial=seed % 2))
        assert sorted(one.shape for one in layout.distractors) == sorted(SHAPES)
        assert len({one.rgb for one in layout.distractors}) == len(SHAPES)
        for index, one in enumerate(layout.distractors):
            place, radius = (one.x_m, one.y_m), SHAPES[one.shape].radius_m
            cubes = [math.dist(place, (cube.x_m, cube.y_m)) for cube in layout.cubes.values()]
            assert min(cubes) - radius > FINGER_ROOM_M
            if layout.plate_m is not None:
                assert math.dist(place, layout.plate_m) - radius > PLATE_RADIUS_M
            for other in layout.distractors[:index]:
                gap = math.dist(place, (other.x_m, other.y_m)) - radius - SHAPES[other.shape].radius_m
                assert gap > DISTRACTOR_GAP_M


def test_no_distractor_is_a_cube_or_has_a_cube_s_name(varied: So101Env) -> None:
    assert not SHAPES.keys() & set(COLOURS)
    boxes = [shape.size_m for shape in SHAPES.values() if len(shape.size_m) == 3]
    assert all(max(size) > 1.5 * min(size) for size in boxes)
    varied.reset(seed=0, task="plate")
    names = {point.name for point in varied.scene_points()}
    assert names == {*(f"{colour} cube" for colour in varied.scene.cubes), "plate", "gripper"}


def test_distractors_lie_still_and_leave_the_scene_again(varied: So101Env) -> None:
    varied.reset(seed=2, task="push")
    state = varied.joint_state()
    before = {one.shape: varied.data.body(one.shape).xpos.copy() for one in varied.scene.distractors}
    for one in varied.scene.distractors:
        assert before[one.shape][2] == pytest.approx(SHAPES[one.shape].half_height_m)
    for _ in range(30):
        varied.step(state)
    for name, position in before.items():
        np.testing.assert_allclose(varied.data.body(name).xpos, position, atol=2e-3)
    varied.set_layout(draw_layout(2, "push"))
    for _ in range(5):
        varied.step(state)
    assert all(varied.data.body(name).xpos[2] == pytest.approx(-5) for name in SHAPES)


def test_a_layout_with_distractors_needs_a_model_with_them(so101: So101Env) -> None:
    so101.reset(seed=0, task="pick")
    before = so101.scene
    with pytest.raises(ValueError, match="made without distractors"):
        so101.set_layout(draw_varied_layout(1, "push", Variations(distractors=0.2)))
    assert so101.scene is before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_still_solves_the_hardest_scenes(name: str, task: str) -> None:
    environment = So101Env(variations=Variations(**{name: 1.0}))
    assert sum(is_solved(environment, seed, task) for seed in range(1_000_000, 1_000_003)) == 3
    environment.close()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_90_of_100_of_the_hardest_scenes(varied: So101Env, task: str) -> None:
    assert sum(is_solved(varied, seed, task) for seed in range(1_000_000, 1_000_100)) >= 90


def is_solved(environment: So101Env, seed: int, task: str) -> bool:
    environment.reset(seed=seed, task=task)
    expert = So101Expert(environment)
    for _ in range(environment.max_steps):
        outcome = environment.step(expert.action())
        if outcome.done:
            return outcome.success
    return False


# Cameras: what is said of pixels stays true


def test_a_roll_turns_the_camera_about_its_axis_alone() -> None:
    straight = look_at(FRONT_CAMERA[0], FRONT_CAMERA[1])
    assert (rolled(straight, 0.0) == straight).all()
    np.testing.assert_allclose(abs(rolled(straight, 0.3) @ straight), math.cos(0.15))
    np.testing.assert_allclose(rolled(rolled(straight, 0.3), -0.3), straight)


def test_the_front_camera_moves_by_what_is_said_and_the_wrist_s_stays() -> None:
    for seed in range(20):
        nominal, moved = (draw_varied_layout(seed, "pick", Variations(camera=m)).look for m in (0, 1))
        shift = moved.camera_shifts_m - nominal.camera_shifts_m
        assert np.linalg.norm(shift[0, 0]) == pytest.approx(CAMERA_SHIFT_M)
        assert abs(moved.front_roll_rad) == CAMERA_ROLL_RAD
        assert (shift[1] == 0).all()


def test_points_and_depth_follow_the_camera(varied: So101Env) -> None:
    """In the pixel where a cube is said to be there is that cube, at the depth of its surface."""
    height, width = varied.image_size
    seen = 0
    for seed in range(6):
        varied.reset(seed=seed, task="pick")
        depth_m = varied.observe_depth("front")
        camera = varied.model.camera("front").id
        backward = varied.data.cam_xmat[camera].reshape(3, 3)[:, 2]
        for point in varied.scene_points():
            pixel = point.pixels["front"]
            if not point.name.endswith("cube") or not pixel.inside:
                continue
            axial_m = -(point.position_m - varied.data.cam_xpos[camera]) @ backward
            half_m = varied.scene.cubes[point.name.split()[0]].half_m
            assert 0 < axial_m - depth_m[int(pixel.v), int(pixel.u)] < half_m * math.sqrt(3)
            seen += 1
        labels = label_row(varied)
        assert labels["label.pixels_inside"].shape == (10,)
        assert (labels["label.pixels"] <= 1).all()
    assert seen >= 10
    assert (height, width) == depth_m.shape
