"""The tiny checkpoints that users test with: complete, repeatable, and as strict as real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.model.config import read_config
from molmoact2.model.weights import load_model
from molmoact2.processing.processor import Processor
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.tokens.reading import parse_json


def read_model(directory: Path):
    return load_model(directory, read_config(parse_json((directory / "config.json").read_bytes(), "config.json")))


def test_same_seed_same_files(tmp_path: Path):
    first, second = (tiny_checkpoint(tmp_path / name, seed=3) for name in ("first", "second"))
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_another_seed_is_another_network(tmp_path: Path):
    first, second = (read_model(tiny_checkpoint(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert all(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("tag", EMBODIMENTS)
def test_every_released_robot_can_be_tested_with(tag: str, tmp_path: Path):
    robot = EMBODIMENTS[tag]
    processor = Processor.load(tiny_checkpoint(tmp_path, embodiments=[robot]))
    encoded = processor.encode(fake_observation(robot))
    assert robot.setup in encoded.prompt
    assert encoded.image_mask.any()


def test_observations_repeat_and_differ_by_seed():
    first, again, other = (fake_observation(seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.state, again.state)
    np.testing.assert_array_equal(first.images["wrist"], again.images["wrist"])
    assert not np.array_equal(first.images["wrist"], other.images["wrist"])


def test_variations_reach_the_config(tmp_path: Path):
    directory = tiny_checkpoint(tmp_path, text_config={"norm_after": True}, vit_config={"num_hidden_layers": 4})
    model = read_model(directory)
    assert model.config.text_config.norm_after
    assert model.config.vit_config.num_hidden_layers == 4


def test_a_misspelt_variation_is_refused(tmp_path: Path):
    with pytest.raises(TypeError, match="max_action_dims"):
        tiny_checkpoint(tmp_path, max_action_dims=8)


def test_nothing_is_overwritten(tmp_path: Path):
    tiny_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="not empty"):
        tiny_checkpoint(tmp_path)
