import numpy as np
import pytest

from molmoact2.envs.perturbation import Perturbation
from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_expert import So101Expert
from molmoact2.envs.so101_kinematics import Kinematics
from molmoact2.envs.so101_layout import TASKS
from molmoact2.types import Outcome


def run(environment: So101Env, task: str, seed: int, *, perturbed: bool) -> Outcome:
    """One episode of the expert."""
    environment.reset(seed=seed, task=task)
    expert, perturbation = So101Expert(environment), Perturbation(seed)
    outcome = Outcome()
    for _ in range(environment.max_steps):
        action = expert.action()
        if perturbed:
            action = perturbation.disturb(action, delicate=expert.delicate)
        outcome = environment.step(action)
        if outcome.done:
            break
    return outcome


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(5))
def test_the_expert_solves_every_task(so101: So101Env, task: str, seed: int) -> None:
    assert run(so101, task, seed, perturbed=False).success


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_recovers_from_disturbances(so101: So101Env, task: str) -> None:
    assert sum(run(so101, task, seed, perturbed=True).success for seed in range(5)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("perturbed", [False, True])
def test_the_expert_solves_95_of_100(so101: So101Env, task: str, perturbed: bool) -> None:
    assert sum(run(so101, task, seed, perturbed=perturbed).success for seed in range(100)) >= 95


def test_the_expert_picks_up_a_cube_that_was_taken_away(so101: So101Env) -> None:
    so101.reset(seed=1, task="pick")
    expert = So101Expert(so101)
    while not expert.holding:
        so101.step(expert.action())
    so101.data.joint(so101.scene.target).qpos[:3] = (0.22, 0.0, so101.scene.cubes[so101.scene.target].half_m)
    so101.forward()
    outcomes = [so101.step(expert.action()) for _ in range(60)]
    assert any(outcome.success for outcome in outcomes)


def test_the_expert_has_no_memory(so101: So101Env) -> None:
    so101.reset(seed=2, task="plate")
    expert = So101Expert(so101)
    for _ in range(12):
        so101.step(expert.action())
    np.testing.assert_array_equal(expert.action(), So101Expert(so101).action())
    chunk = expert.act(so101.observe())
    assert chunk.actions.shape == (1, 6)
    assert chunk.actions.dtype == np.float32


@pytest.mark.parametrize("height_m", [0.015, 0.06])
def test_kinematics_reach_the_workspace(so101: So101Env, height_m: float) -> None:
    kinematics = Kinematics(so101.model)
    for reach in (0.15, 0.2, 0.24):
        for azimuth in (-0.7, 0.0, 0.7):
            target = np.array((0.0388 + reach * np.cos(azimuth), reach * np.sin(azimuth), height_m))
            kinematics.data.qpos[:5] = kinematics.solve(target, turn_rad=0.3)
            kinematics.update()
            np.testing.assert_allclose(kinematics.data.site("pinch").xpos, target, atol=5e-4)


def test_disturbances_are_seeded_and_spare_the_gripper() -> None:
    action = np.array((10, 20, 30, 40, 50, 60), dtype=np.float32)
    one, same, other = Perturbation(0), Perturbation(0), Perturbation(1)
    for _ in range(40):
        disturbed = one.disturb(action)
        np.testing.assert_array_equal(disturbed, same.disturb(action))
        assert (disturbed[:5] != other.disturb(action)[:5]).all()
        assert disturbed[5] == action[5]
        assert disturbed.dtype == np.float32


def test_delicate_moments_are_disturbed_less() -> None:
    def spread(delicate: bool) -> float:
        actions = [Perturbation(seed).disturb(np.zeros(6), delicate=delicate)[:5] for seed in range(200)]
        return float(np.std(actions))

    assert spread(True) < 0.5 * spread(False)
