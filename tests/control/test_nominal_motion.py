"""The guard leaves nominal motion alone: the teacher of the simulated arm does not notice it."""

import numpy as np
import pytest

from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Reading
from molmoact2.embodiments import SO101_TABLETOP

pytest.importorskip("molmoact2.envs.headless", exc_type=ImportError)

LIMITS = MotionLimits.of(SO101_TABLETOP)


@pytest.mark.parametrize("task", ["pick", "plate", "push"])
def test_the_teacher_is_neither_slowed_nor_stopped(task):
    """`python -m benchmarks.guard` asks the same of more episodes, and of recorded ones."""
    from molmoact2.envs.so101 import So101Env
    from molmoact2.envs.so101_expert import So101Expert

    environment = So101Env()
    for seed in range(3):
        environment.reset(seed=seed, task=task)
        teacher, guard, step = So101Expert(environment), Guard(LIMITS, mode=Mode.FULL), 0
        guard.admit(None, Reading(time_s=0.0, state=environment.joint_state()), 0.0)
        outcome = environment.judge()
        while not outcome.done and step < environment.max_steps:
            step += 1
            now, action = step * LIMITS.period_s, teacher.action()
            verdict = guard.admit(action, Reading(time_s=now, state=environment.joint_state()), now)
            np.testing.assert_allclose(verdict.command, action, atol=1e-4, err_msg=str(verdict.reasons))
            assert not verdict.faults
            outcome = environment.step(verdict.command)
        assert outcome.success
        assert step > 10
    environment.close()
