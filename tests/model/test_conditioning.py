"""What the expert reads of the decoder, in the three ways the paper compares (section 4)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molmoact2.inference import load_policy, save_policy
from molmoact2.model.action_expert import ExpertContext
from molmoact2.model.config import ConfigError
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import fake_observation, random_model, tiny_checkpoint
from small_networks import GRID, prompts, small_config

CONDITIONINGS: dict[str, dict[str, Any]] = {
    "layer_kv": {"conditioning": "layer_kv"},
    "head_kv": {"conditioning": "head_kv", "num_heads": 2},
    "last_hidden": {"conditioning": "last_hidden"},
}


def network(conditioning: str, **variations: Any) -> MolmoAct2:
    config = small_config(action_expert_config=CONDITIONINGS[conditioning], **variations)
    return random_model(config, seed=0).requires_grad_(False)


def read(model: MolmoAct2) -> tuple[list[tuple[Tensor, Tensor]], ExpertContext]:
    """What the expert is given, with gradients, and what it makes of it."""
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    leaves = [(key.detach().requires_grad_(), value.detach().requires_grad_()) for key, value in layers]
    distinct = leaves[:1] * len(leaves) if layers[0][0] is layers[-1][0] else leaves
    return distinct, model.expert_context(distinct, inputs.token_ids, inputs.valid)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_every_block_gets_keys_and_values_of_its_own_heads(conditioning: str):
    model = network(conditioning)
    expert = model.config.action_expert_config
    assert expert is not None
    _, context = read(model)
    assert len(context.layers) == model.config.text_config.num_hidden_layers
    for key, value in context.layers:
        assert key.shape == value.shape == (2, expert.num_heads, context.mask.shape[-1], expert.head_dim)


@pytest.mark.parametrize(("conditioning", "width"), [("layer_kv", 16), ("head_kv", 8), ("last_hidden", 32)])
def test_the_projections_read_so_many_numbers_of_a_token(conditioning: str, width: int):
    model = network(conditioning)
    assert model.config.context_width == width
    assert model.action_expert is not None
    assert model.action_expert.context_key.weight.shape == (32, width)


@pytest.mark.parametrize("conditioning", ["layer_kv", "head_kv"])
@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize("part", [0, 1])
def test_block_l_reads_layer_l_and_keys_come_from_keys(conditioning: str, block: int, part: int):
    layers, context = read(network(conditioning))
    context.layers[block][part].sum().backward()
    for layer, leaves in enumerate(layers):
        for kind, leaf in enumerate(leaves):
            has_gradient = leaf.grad is not None and bool(leaf.grad.any())
            assert has_gradient == (layer == block and kind == part)


@pytest.mark.parametrize("head", [0, 1])
def test_per_head_head_n_reads_head_n_alone(head: int):
    layers, context = read(network("head_kv"))
    for part in (0, 1):
        context.layers[0][part][:, head].square().mul(torch.arange(16)).sum().backward()
        gradient = layers[0][part].grad
        assert gradient is not None
        assert gradient[:, head].any()
        assert not gradient[:, 1 - head].any()


@pytest.mark.parametrize("head", [0, 1])
def test_otherwise_every_head_reads_all_heads(head: int):
    layers, context = read(network("layer_kv"))
    context.layers[0][1][:, head].square().mul(torch.arange(8)).sum().backward()
    gradient = layers[0][1].grad
    assert gradient is not None
    assert gradient.abs().sum(dim=(0, 2, 3)).all()


def test_hidden_states_are_the_same_in_every_block_and_projected_once():
    model = network("last_hidden")
    inputs = prompts(model.config)
    encoding = model.read(inputs, model.image_features(inputs, GRID))
    assert all(torch.equal(part[:, 0], encoding.hidden) for layer in encoding.layers for part in layer)
    _, context = read(model)
    assert all(layer is context.layers[0] for layer in context.layers)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_the_velocity_depends_on_what_is_read(conditioning: str):
    model = network(conditioning)
    layers, context = read(model)
    assert model.action_expert is not None
    noise = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    velocity = model.action_expert.velocity(noise, model.modulation(torch.full((2, 1), 0.3)), context)
    velocity.square().sum().backward()
    assert all(leaf.grad is not None and bool(leaf.grad.any()) for layer in layers for leaf in layer)


@pytest.mark.parametrize(
    ("variations", "complaint"),
    [
        ({"action_expert_config": {"conditioning": "head_kv", "num_heads": 4}}, "num_heads \\(4\\) must equal"),
        ({"action_expert_config": {"conditioning": "last_hidden"}, "enable_depth_reasoning": True}, "last_hidden"),
        ({"action_expert_config": {"conditioning": "last_hidden"}, "action_expert_depth_gate": True}, "last_hidden"),
    ],
)
def test_what_cannot_be_is_refused(variations: dict[str, Any], complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        small_config(**variations)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_a_policy_of_each_kind_acts_and_is_saved_and_loaded(conditioning: str, tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "first", action_expert_config=CONDITIONINGS[conditioning])
    policy = load_policy(folder)
    save_policy(policy, tmp_path / "second")
    again = load_policy(tmp_path / "second")
    assert again.config == policy.config
    assert again.config.action_expert_config is not None
    assert again.config.action_expert_config.conditioning == conditioning
    observations = [fake_observation(seed=seed) for seed in (0, 1)]
    chunks, copies = (p.act(observations, seed=0) for p in (policy, again))
    for chunk, copy in zip(chunks, copies, strict=True):
        np.testing.assert_array_equal(chunk.actions, copy.actions)
    assert (chunks[0].actions != chunks[1].actions).any()
    alone = policy.act(observations[0], seed=0)
    np.testing.assert_allclose(alone.actions, chunks[0].actions, rtol=1e-3, atol=1e-3)
