"""Who acts: the baseline, the expert, and a checkpoint whose noise follows from the episode's seed."""

import numpy as np
import pytest

from molmoact2.evaluation.policies import HoldStill, PolicyChoice
from molmoact2.inference.checkpoint import bundled_policy
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.types import Observation


class Tabletop:
    """Stands for an environment where only its robot matters."""

    embodiment = "so101_tabletop"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def act(choice, seed, times=1):
    policy = choice.open(Tabletop()).start(seed)
    return [policy.act(fake_observation(seed=1)).actions for _ in range(times)]


def test_holding_still_keeps_the_first_pose():
    policy = HoldStill()
    poses = np.array([[1.0, 2.0], [3.0, 4.0]])
    chunks = [policy.act(Observation(images=[], state=pose, instruction="stay")).actions for pose in poses]
    np.testing.assert_array_equal(chunks, [[[1, 2]], [[1, 2]]])


def test_the_seed_of_an_episode_is_the_seed_of_its_noise(checkpoint):
    choice = PolicyChoice(name=str(checkpoint), environment="so101")
    first, second = act(choice, seed=3, times=2)
    np.testing.assert_array_equal([first, second], act(choice, seed=3, times=2))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, act(choice, seed=4)[0])


def test_a_checkpoint_shows_its_whole_plan_and_executes_its_own_number(checkpoint):
    source = PolicyChoice(name=str(checkpoint), environment="so101").open(Tabletop())
    assert source.num_action_steps == 12
    assert source.start(0).act(fake_observation()).actions.shape == (16, 6)
    fewer = PolicyChoice(name=str(checkpoint), environment="so101", num_action_steps=2).open(Tabletop())
    assert fewer.num_action_steps == 2


def test_the_fingerprint_is_that_of_the_files(checkpoint, tmp_path):
    def fingerprint(path):
        return PolicyChoice(name=str(path), environment="so101").fingerprint()

    same, other = tiny_checkpoint(tmp_path / "same"), tiny_checkpoint(tmp_path / "other", seed=1)
    assert fingerprint(same) == fingerprint(checkpoint) != fingerprint(other)
    assert fingerprint("expert") == "expert"


def test_the_label_is_the_folder_s_own_name(checkpoint):
    assert PolicyChoice(name=f"{checkpoint}/", environment="so101").label == "tiny"
    assert PolicyChoice(name="hold", environment="so101").label == "hold"


def test_only_environments_with_an_expert_have_one():
    with pytest.raises(ValueError, match=r"Unknown environment with an expert 'libero'.*so101"):
        PolicyChoice(name="expert", environment="libero").open(Tabletop())


def test_a_policy_that_is_nowhere_is_refused():
    choice = PolicyChoice(name="expart", environment="so101")
    for ask in (choice.fingerprint, lambda: choice.open(Tabletop())):
        with pytest.raises(ValueError, match="expart is neither a directory nor a hub id"):
            ask()


def test_a_bundled_policy_that_is_not_there_is_missed_clearly():
    with pytest.raises(ValueError, match=r"no bundled policy at .*nobody.*molmoact2 train nobody"):
        bundled_policy("nobody")
