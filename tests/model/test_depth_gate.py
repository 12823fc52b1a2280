"""What the depth gate lets through, and which tokens the expert sees."""

import pytest
import torch

from molmoact2.model.config import ConfigError
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import random_model
from small_networks import GRID, prompts, small_config


def gated(bias: float, **fields: object) -> MolmoAct2:
    model = random_model(small_config(action_expert_depth_gate=True, **fields), seed=0).requires_grad_(False)
    for gate in model.depth_gate:
        gate.weight.zero_()
        gate.bias.fill_(bias)
    return model


def contexts(model: MolmoAct2) -> tuple[list, list]:
    """Keys and values as they are, and as they come through the gate."""
    inputs, expert, given = prompts(model.config), model.action_expert, []
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expert, "context", lambda gated, visible: given.append(gated) or type(expert).context(
            expert, gated, visible))  # fmt: skip
        model.expert_context(layers, inputs.token_ids, inputs.valid)
    return layers, given[0]


@pytest.mark.parametrize("per_layer", [False, True])
def test_an_open_gate_changes_nothing(per_layer: bool):
    before, after = contexts(gated(bias=99.0, action_expert_depth_gate_per_layer=per_layer))
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_closed_gate_hides_depth_and_nothing_else():
    model = gated(bias=-999.0)
    is_depth = model.is_depth_token(prompts(model.config).token_ids)
    for before, after in zip(*contexts(model), strict=True):
        for whole, rest in zip(before, after, strict=True):
            assert torch.equal(rest, whole * ~is_depth[:, None, :, None])


def seen_by_expert(model: MolmoAct2) -> list:
    """What the expert sees of the keys and values of a prompt."""
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    return model.expert_context(layers, inputs.token_ids, inputs.valid).layers


def test_the_norms_of_the_context_undo_a_gate_before_them_but_not_one_behind_them():
    fields = {"action_expert_config": {"context_layer_norm": True}}
    is_depth, values = torch.zeros(0), {}
    for name, bias, after in (("open", 99.0, False), ("before", -4.0, False), ("behind", -4.0, True)):
        model = gated(bias=bias, action_expert_depth_gate_after_norm=after, **fields)
        is_depth = model.is_depth_token(prompts(model.config).token_ids)
        values[name] = torch.stack([value for _, value in seen_by_expert(model)])
    gate = torch.sigmoid(torch.tensor(-4.0))
    depth = is_depth[None, :, None, :, None]
    torch.testing.assert_close(values["behind"], torch.where(depth, values["open"] * gate, values["open"]))
    lengths = {name: (value * depth).norm() for name, value in values.items()}
    assert lengths["before"] > 0.5 * lengths["open"] > 10 * lengths["behind"]


def test_depth_tokens_are_trigger_delimiters_and_codes():
    model = gated(bias=0.0)
    ids = torch.arange(28, 44)[None]
    assert model.is_depth_token(ids)[0].tolist() == [28 + i in range(30, 41) for i in range(16)]


def test_a_config_without_depth_tokens_gates_nothing():
    model = gated(bias=-999.0, depth_token_start_id=None)
    before, after = contexts(model)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_the_gate_averages_what_is_neither_depth_nor_padding():
    model = random_model(small_config(action_expert_depth_gate=True), seed=0).requires_grad_(False)
    value = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    pooled = torch.tensor([[True, False, True, False]])
    mean = value[:, :, [0, 2]].mean(dim=2).flatten(1)
    expected = torch.sigmoid(model.depth_gate[0](mean))
    layers = [(value, value * 0), (value, value)]
    for gate in model.depth_gates(layers, pooled):
        torch.testing.assert_close(gate, expected, rtol=1e-6, atol=1e-6)


def test_gates_belong_to_checkpoints_that_have_them():
    with pytest.raises(ValueError, match="no depth gate"):
        random_model(small_config(), seed=0).depth_gates([], torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("continuous", [1, 1, 1, 1, 1, 1, 1, 1, 0]),
        ("both", [0, 1, 0, 0, 0, 1, 0, 1, 0]),
    ],
)
def test_what_was_said_before_is_hidden_if_actions_are_also_spoken(mode: str, seen: list[int]):
    model = MolmoAct2(small_config(action_mode=mode))
    ids = torch.tensor([[1, 50, 11, 14, 12, 51, 1, 33, 52]])
    valid = torch.tensor([[True] * 8 + [False]])
    assert model.visible_to_expert(ids, valid)[0].int().tolist() == seen


def test_an_action_that_is_still_being_said_is_hidden_too():
    model = MolmoAct2(small_config(action_mode="both"))
    ids = torch.tensor([[50, 11, 14, 12, 51, 11, 14, 14]])
    visible = model.visible_to_expert(ids, torch.ones_like(ids, dtype=torch.bool))
    assert visible[0].int().tolist() == [1, 0, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("name", ["eos_token_id", "action_start_token_id", "action_end_token_id"])
def test_what_is_hidden_must_be_known(name: str):
    with pytest.raises(ConfigError, match=f"lacks {name}, which the expert must not see"):
        MolmoAct2(small_config(**{name: None}))
    MolmoAct2(small_config(**{name: None}, action_mode="continuous"))
