"""A checkpoint that is changed before it is trained keeps what it knows, on disk as well."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_run import STATS, small_data, small_start

from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP
from molmoact2.inference import MolmoAct2Policy, load_policy, save_policy
from molmoact2.model.config import ExpertConfig
from molmoact2.testing import vary
from molmoact2.training.fresh import tag_entry
from molmoact2.training.start import Start, grown
from molmoact2.types import Observation

WITHOUT_EXPERT = {"add_action_expert": False, "action_expert_config": None, "action_mode": "discrete"}


def expert_of(start: Start) -> ExpertConfig:
    config = start.model.config.action_expert_config
    assert config is not None
    return config


def observation() -> Observation:
    example: Any = small_data().streams["robot"].example(1)
    return Observation(images=list(example.images), state=example.state, instruction=example.instruction)


def saved_and_loaded(start: Start, folder: Path) -> MolmoAct2Policy:
    policy = MolmoAct2Policy(
        model=start.model, processor=start.processor, action_tokenizer=start.action_tokenizer
    )  # fmt: skip
    save_policy(policy, folder)
    return load_policy(folder)


@pytest.mark.parametrize("conditioning", ["layer_kv", "head_kv", "last_hidden"])
def test_a_new_expert_leaves_all_else_as_it_is(conditioning: str, tmp_path: Path):
    before = small_start(**WITHOUT_EXPERT)
    template = expert_of(small_start())
    heads = {"num_heads": 2} if conditioning == "head_kv" else {}
    expert = replace(template, **heads, conditioning=conditioning)
    after = before.with_action_expert(expert, seed=5, action_mode="both", max_action_dim=7)
    old, new = dict(before.model.named_parameters()), dict(after.model.named_parameters())
    assert {name.split(".")[0] for name in new.keys() - old.keys()} == {"action_expert"}
    assert all(torch.equal(new[name], parameter) for name, parameter in old.items())
    assert before.model.action_expert is None
    policy = saved_and_loaded(after, tmp_path / "grown")
    assert policy.config == after.model.config
    assert policy.config.action_expert_config == expert
    assert policy.modes == ("continuous", "discrete")
    assert np.isfinite(policy.act(observation(), seed=0).actions).all()


def test_new_weights_follow_from_the_seed():
    before, expert = small_start(**WITHOUT_EXPERT), expert_of(small_start())
    first, same, other = (
        before.with_action_expert(expert, seed=seed, action_mode="both").model.get_parameter(
            "action_expert.blocks.1.mlp.up.weight"
        )
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, same)
    assert (first != other).all()


def test_an_expert_that_is_there_is_not_replaced_in_silence():
    start = small_start()
    with pytest.raises(ValueError, match="has an action expert"):
        start.with_action_expert(expert_of(start), seed=0)


@pytest.mark.parametrize(
    ("variations", "complaint"),
    [
        ({"text_config": {"intermediate_size": 64}}, r"text.blocks.0.mlp.up_gate.weight has the shape \[96, 32\]"),
        ({"max_action_dim": 9}, r"action_expert.action_embedding.weight has the shape \[32, 8\]"),
        (WITHOUT_EXPERT, "has no action_expert.action_embedding.bias"),
        ({"text_config": {"num_hidden_layers": 1}, "action_expert_config": {"num_layers": 1}}, "has no action_expert"),
    ],
)
def test_what_was_learned_is_not_lost_in_silence(variations: dict[str, Any], complaint: str):
    model = small_start().model
    with pytest.raises(ValueError, match=complaint):
        grown(model, vary(model.config, variations), seed=0)


def test_growing_by_nothing_is_a_copy():
    model = small_start().model
    copy = grown(model, model.config, seed=3)
    for name, parameter in model.named_parameters():
        assert torch.equal(copy.get_parameter(name), parameter)
        assert copy.get_parameter(name).data_ptr() != parameter.data_ptr()


def test_a_new_way_of_acting_is_written_to_disk(tmp_path: Path):
    start = small_start(action_mode="both")
    changed = start.with_config(replace(start.model.config, action_mode="continuous"), seed=0)
    policy = saved_and_loaded(changed, tmp_path / "changed")
    assert policy.modes == ("continuous",)
    assert start.processor.files["config.json"] != changed.processor.files["config.json"]


FRANKA = EMBODIMENTS["franka_droid"]


def test_another_robot_is_known_on_disk_too(tmp_path: Path):
    start = small_start()
    wide = {name: np.full(8, value[0]) for name, value in STATS.items()} | {
        name: np.full(8, value) for name, value in (("q01", -1.0), ("q99", 1.0))
    }
    entry = tag_entry(FRANKA, state_stats=wide, action_stats=wide)
    policy = saved_and_loaded(start.with_room_for({FRANKA.tag: entry}, seed=0), tmp_path / "both")
    assert set(policy.embodiments) == {SO101_TABLETOP.tag, FRANKA.tag}
    assert policy.processor.tag(FRANKA.tag).action.width == 8
    np.testing.assert_array_equal(
        policy.act(observation(), SO101_TABLETOP.tag, seed=0).actions,
        saved_and_loaded(start, tmp_path / "one").act(observation(), seed=0).actions,
    )


def test_a_longer_horizon_needs_no_new_weights():
    start = small_start()
    entry = {**tag_entry(SO101_TABLETOP, state_stats=STATS, action_stats=STATS), "action_horizon": 40}
    longer = start.with_room_for({SO101_TABLETOP.tag: entry}, seed=0)
    assert longer.model.config.max_action_horizon == 40
    for name, parameter in start.model.named_parameters():
        assert torch.equal(longer.model.get_parameter(name), parameter)
    assert longer.processor.tag(None).action_horizon == 40


def test_a_robot_that_is_too_wide_is_refused():
    wide = {name: np.full(14, value[0]) for name, value in STATS.items()}
    robot = EMBODIMENTS["yam_dual_molmoact2"]
    entry = tag_entry(robot, state_stats=wide, action_stats=wide)
    with pytest.raises(ValueError, match="14 action dimensions, but this network has room for 8"):
        small_start().with_room_for({robot.tag: entry}, seed=0)
