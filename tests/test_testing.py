"""The tiny checkpoints that users test with: complete, repeatable, and as strict as real ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molmoact2 import load_policy
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.testing import fake_observation, tiny_checkpoint


def test_same_seed_same_files(tmp_path: Path):
    first, second = (tiny_checkpoint(tmp_path / name, seed=3) for name in ("first", "second"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_another_seed_is_another_network(tmp_path: Path):
    first, second = (load_policy(tiny_checkpoint(tmp_path / str(seed), seed=seed)).model for seed in (0, 1))
    assert all(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("tag", EMBODIMENTS)
def test_every_released_robot_can_be_tested_with(tag: str, tmp_path: Path):
    robot = EMBODIMENTS[tag]
    policy = load_policy(tiny_checkpoint(tmp_path, embodiments=[robot]))
    chunk = policy.act(fake_observation(robot), num_steps=1)
    assert chunk.actions.shape == (robot.n_action_steps, len(robot.action_names))


def test_observations_repeat_and_differ_by_seed():
    first, again, other = (fake_observation(seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.state, again.state)
    for name, image in first.images.items():
        np.testing.assert_array_equal(image, again.images[name])
        assert not np.array_equal(image, other.images[name])


def test_variations_reach_the_config(tmp_path: Path):
    directory = tiny_checkpoint(tmp_path, text_config={"norm_after": True}, vit_config={"num_hidden_layers": 4})
    config = load_policy(directory).config
    assert config.text_config.norm_after
    assert config.vit_config.num_hidden_layers == 4


def test_a_misspelt_variation_is_refused(tmp_path: Path):
    with pytest.raises(TypeError, match="max_action_dims"):
        tiny_checkpoint(tmp_path, max_action_dims=8)


def test_observations_fit_what_a_checkpoint_knows(golden: Path):
    policy = load_policy(golden / "tiny")
    for tag in policy.embodiments:
        chunk = policy.act(fake_observation(policy.processor.tag(tag)), tag)
        assert chunk.actions.shape[1] == policy.processor.tag(tag).action.width


@pytest.mark.parametrize("part", ["images", "state", "instruction"])
def test_actions_answer_to_every_part_of_an_observation(part: str, tmp_path: Path):
    policy, observation = load_policy(tiny_checkpoint(tmp_path)), fake_observation(seed=0)
    change = {"images": fake_observation(seed=1).images, "state": -observation.state, "instruction": "push the cube"}
    changed = replace(observation, **{part: change[part]})
    assert not np.allclose(policy.act(observation, seed=0).actions, policy.act(changed, seed=0).actions, atol=0.01)
