"""The episode loop: when it looks, what it executes, when it stops."""

import numpy as np
import pytest
from worlds import LineWorld, Walker

from molmoact2.evaluation.rollout import OUT_OF_TIME, run_episode
from molmoact2.types import ActionChunk


class Notes:
    """Observer that writes everything down."""

    def __init__(self):
        self.plans, self.executed = [], []

    def planned(self, step, observation, chunk):
        self.plans.append((step, observation, chunk))

    def stepped(self, step, executed, _outcome):
        self.executed.append((step, np.array(executed)))


@pytest.mark.parametrize("num_action_steps", [1, 2, 4, 6, None])
def test_it_looks_once_per_plan_and_executes_the_first_rows(num_action_steps):
    world, notes = LineWorld(), Notes()
    result = run_episode(world, Walker(1.0), task="right", seed=7, num_action_steps=num_action_steps, observer=notes)
    stride = num_action_steps or 6
    plan_steps = [step for step, _, _ in notes.plans]
    assert plan_steps == list(range(0, result.num_steps, stride))
    assert world.looks == len(result.plan_seconds) == len(plan_steps)
    for step, executed in notes.executed:
        np.testing.assert_array_equal(executed, notes.plans[step // stride][2].actions[step % stride])


def test_it_stops_at_success_in_the_middle_of_a_chunk():
    result = run_episode(LineWorld(), Walker(1.0, horizon=5), task="right", seed=3)
    assert result.success
    assert result.failure is None
    assert result.num_steps < LineWorld.max_steps
    assert result.num_steps % 5 != 0
    assert result.simulated_seconds == result.num_steps / 10
    assert result.instruction == "go right"


def test_it_stops_at_failure_and_says_why():
    result = run_episode(LineWorld(), Walker(-1.0), task="right", seed=3)
    assert (result.success, result.failure) == (False, "wrong object")


def test_an_undecided_episode_runs_out_of_time():
    result = run_episode(LineWorld(), Walker(0.0), task="right", seed=3, num_action_steps=4)
    assert (result.success, result.failure, result.num_steps) == (False, OUT_OF_TIME, LineWorld.max_steps)


def test_a_disturbance_is_executed_but_not_planned():
    clean, notes = Notes(), Notes()
    run_episode(LineWorld(), Walker(1.0), task="right", seed=7, observer=clean)
    run_episode(LineWorld(), Walker(1.0), task="right", seed=7, disturb=lambda a: a + 0.03, observer=notes)
    np.testing.assert_array_equal(notes.plans[0][2].actions, clean.plans[0][2].actions)
    np.testing.assert_allclose(notes.executed[0][1], clean.executed[0][1] + 0.03, rtol=1e-6)
    assert not np.array_equal(notes.plans[1][1].state, clean.plans[1][1].state)


def test_the_policy_stage_times_are_kept():
    result = run_episode(LineWorld(), Walker(1.0), task="right", seed=3)
    assert result.stage_seconds == ({"encode": 0.002, "plan": 0.004},) * len(result.plan_seconds)


@pytest.mark.parametrize("num_action_steps", [0, -1, 7])
def test_rows_that_were_not_planned_cannot_be_executed(num_action_steps):
    with pytest.raises(ValueError, match=r"planned 6 rows.*between 1 and"):
        run_episode(LineWorld(), Walker(1.0), task="right", seed=0, num_action_steps=num_action_steps)


def test_an_empty_plan_is_refused():
    class Silent:
        def act(self, _observation):
            return ActionChunk(actions=np.zeros((0, 2), np.float32))

    with pytest.raises(ValueError, match="planned 0 rows"):
        run_episode(LineWorld(), Silent(), task="right", seed=0)
