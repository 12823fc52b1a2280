"""A run that is stopped and continued is the run that never stopped, and its export is an ordinary checkpoint."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import small_config, small_trainer

from molmoact2.inference import load_policy
from molmoact2.training.checkpoint import latest_checkpoint
from molmoact2.types import Observation


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(tmp_path, stop):
    whole = small_trainer(tmp_path / "whole")
    whole.run()
    first = small_trainer(tmp_path / "parts")
    first.run(until=stop)
    second = small_trainer(tmp_path / "parts")
    second.resume()
    assert second.step == stop
    second.run()
    for name, module in whole.modules.items():
        for key, parameter in module.named_parameters():
            assert torch.equal(parameter, second.modules[name].get_parameter(key)), f"{name}.{key}"
    for key, tensor in whole.average.average.items():
        assert torch.equal(tensor, second.average.average[key]), key


def test_the_log_has_every_step_once_after_a_resume(tmp_path):
    small_trainer(tmp_path).run(until=2)
    again = small_trainer(tmp_path)
    again.resume()
    again.run()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert {line["stage"] for line in lines} == {"reason", "act"}


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    small_trainer(tmp_path).run(until=1)
    other = small_trainer(tmp_path, replace(small_config(), seed=1))
    with pytest.raises(ValueError, match="other settings"):
        other.resume()


@pytest.mark.parametrize("name", ["parameters-00000-of-00001.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, name):
    small_trainer(tmp_path).run(until=1)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        small_trainer(tmp_path).resume()


def test_the_export_is_an_ordinary_checkpoint_that_acts(tmp_path):
    trainer = small_trainer(tmp_path, small_config(dtype="float32"))
    trainer.run()
    trainer.export(tmp_path / "checkpoint")
    policy = load_policy(tmp_path / "checkpoint")
    image = np.zeros((128, 128, 3), np.uint8)
    observation = Observation(
        images={"front": image, "wrist": image}, state=np.zeros(6), instruction="pick up the red cube"
    )
    assert policy.act(observation, seed=0).actions.shape == (12, 6)
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, trainer.average.average[name]), name


def test_the_policy_is_kept_along_the_way_once_it_learns_to_act(tmp_path):
    small_trainer(tmp_path, small_config(snapshot_every=1)).run()
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["step-0000003", "step-0000004"]


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    trainer = small_trainer(tmp_path)
    assert trainer.heads is not None
    with torch.no_grad():
        trainer.heads.things.weight.fill_(float("nan"))
    before = trainer.model.text.embedding.clone()
    with pytest.raises(FloatingPointError, match="gradient"):
        trainer.run(until=1)
    assert torch.equal(trainer.model.text.embedding, before)


def test_measuring_changes_nothing(tmp_path):
    trainer = small_trainer(tmp_path)
    trainer.run(until=1)
    before = {key: parameter.clone() for key, parameter in trainer.model.named_parameters()}
    errors = trainer.measure()
    assert "scenes_error_m" in errors
    assert all(torch.equal(before[key], parameter) for key, parameter in trainer.model.named_parameters())
