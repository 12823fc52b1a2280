"""Every field of a config does what architecture.md says: the plain network computes each configuration once more.

The plain network reads the written checkpoint, so the names of the tensors are tested too. It computes in float64, the
network in float32: sums of a few dozen products with an error of 6e-8 each, through two to three layers. Measured: 4e-6
of the largest value at most; allowed: 2e-5.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_network import Layers, PlainNetwork
from safetensors.torch import load_file
from torch import Tensor

from molmoact2.model import flow
from molmoact2.model.config import ModelConfig, config_as_json, read_config
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import Encoding, MolmoAct2
from molmoact2.model.weights import load_model, save_model
from molmoact2.testing import random_model
from small_networks import GRID, prompts, single, small_config

RELATIVE = 2e-5
ACTION_DIM = 3
NUM_STEPS = 2

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "small": {},
    "wide_text": {"text_config": {"hidden_size": 40, "head_dim": 12, "intermediate_size": 24},
                  "adapter_config": {"text_hidden_size": 40}},
    "one_key_head": {"text_config": {"num_key_value_heads": 1}},
    "a_key_head_per_head": {"text_config": {"num_key_value_heads": 4}},
    "qkv_bias": {"text_config": {"qkv_bias": True}},
    "olmo_norm": {"text_config": {"qk_norm_type": "olmo"}},
    "no_qk_norm": {"text_config": {"use_qk_norm": False}},
    "no_qk_norm_olmo": {"text_config": {"use_qk_norm": False, "qk_norm_type": "olmo"}},
    "norm_after": {"text_config": {"norm_after": True}},
    "norm_after_olmo_bias": {"text_config": {"norm_after": True, "qk_norm_type": "olmo", "qkv_bias": True}},
    "large_eps": {"text_config": {"layer_norm_eps": 0.1}, "vit_config": {"layer_norm_eps": 0.2},
                  "action_expert_config": {"qk_norm_eps": 0.3}},
    "slow_rotation": {"text_config": {"rope_theta": 100.0}},
    "text_relu": {"text_config": {"hidden_act": "relu"}},
    "tied": {"text_config": {"tie_word_embeddings": True}},
    "one_embedding_table": {"text_config": {"vocab_size": 104, "additional_vocab_size": 0}},
    "one_text_layer": {"text_config": {"num_hidden_layers": 1}, "action_expert_config": {"num_layers": 1}},
    "shared_gate": {"action_expert_depth_gate": True},
    "shared_gate_plain_context": {"action_expert_depth_gate": True,
                                  "action_expert_config": {"context_layer_norm": False}},
    "gate_per_layer": {"action_expert_depth_gate": True, "action_expert_depth_gate_per_layer": True},
    "gate_per_layer_plain_context": {"action_expert_depth_gate": True, "action_expert_depth_gate_per_layer": True,
                                     "action_expert_config": {"context_layer_norm": False}},
    "one_gate_of_one_layer": {"action_expert_depth_gate": True, "action_expert_depth_gate_per_layer": True,
                              "text_config": {"num_hidden_layers": 1}, "action_expert_config": {"num_layers": 1}},
    "sees_everything": {"action_mode": "continuous"},
    "expert_wide": {"action_expert_config": {"hidden_size": 24, "num_heads": 3, "mlp_ratio": 1.5,
                                             "timestep_embed_dim": 6}},
    "expert_no_rope": {"action_expert_config": {"rope": False}},
    "expert_no_qk_norm": {"action_expert_config": {"qk_norm": False}},
    "expert_causal": {"action_expert_config": {"causal_attn": True}},
    "expert_plain_context": {"action_expert_config": {"context_layer_norm": False}},
    "expert_bare": {"action_expert_config": {"rope": False, "qk_norm": False, "context_layer_norm": False,
                                             "causal_attn": True}},
    "expert_per_head": {"action_expert_config": {"conditioning": "head_kv", "num_heads": 2}},
    "expert_per_head_plain_context": {"action_expert_config": {"conditioning": "head_kv", "num_heads": 2,
                                                               "context_layer_norm": False, "qk_norm": False}},
    "expert_per_head_gated": {"action_expert_config": {"conditioning": "head_kv", "num_heads": 2},
                              "action_expert_depth_gate": True},
    "expert_of_hidden_states": {"action_expert_config": {"conditioning": "last_hidden"}},
    "expert_of_wide_hidden_states": {"action_expert_config": {"conditioning": "last_hidden",
                                                              "context_layer_norm": False},
                                     "text_config": {"hidden_size": 40}, "adapter_config": {"text_hidden_size": 40}},
    "padding_flows": {"mask_action_dim_padding": False},
    "vit_wide": {"vit_config": {"hidden_size": 20, "num_attention_heads": 3, "num_key_value_heads": 3,
                                "intermediate_size": 28}},
    "vit_grouped": {"vit_config": {"num_key_value_heads": 2, "hidden_act": "gelu"}},
    "vit_fits_the_image": {"vit_config": {"image_num_pos": 9}},
    "vit_positions_enlarged": {"vit_config": {"image_num_pos": 4}},
    "vit_one_layer": {"adapter_config": {"vit_layers": (-2,)}},
    "vit_layers_from_the_front": {"adapter_config": {"vit_layers": (2, 0)}},
    "vit_a_layer_twice": {"adapter_config": {"vit_layers": (-1, 2)}},
    "pooling_over_the_edge": {"adapter_config": {"pooling_attention_mask": False}},
    "pooling_grouped": {"adapter_config": {"num_key_value_heads": 2, "head_dim": 5, "hidden_act": "gelu"}},
}  # fmt: skip


@pytest.fixture(params=CONFIGURATIONS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return small_config(**CONFIGURATIONS[request.param])


@pytest.fixture
def model(config: ModelConfig) -> MolmoAct2:
    return random_model(config, seed=0).requires_grad_(False)


@pytest.fixture
def plain(model: MolmoAct2, tmp_path: Path) -> PlainNetwork:
    save_model(model, tmp_path)
    return PlainNetwork(config_as_json(model.config), load_file(tmp_path / "model.safetensors"))


@torch.inference_mode()
def test_the_network_computes_what_its_config_says(model: MolmoAct2, plain: PlainNetwork):
    inputs = prompts(model.config)
    features = model.image_features(inputs, GRID)
    encoding = model.read(inputs, features)
    noise = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    velocity, actions = act(model, inputs, encoding, noise)
    for row in range(2):
        one = single(inputs, row)
        num_tokens, num_patches = one.token_ids.shape[1], len(one.pooling)
        expected_features = plain.image_features(one.crops, GRID, one.pooling.tolist())
        assert_close(features[:num_patches] if row == 0 else features[-num_patches:], expected_features)
        hidden, layers = plain.read(one.token_ids[0].tolist(), one.image_mask[0].tolist(), expected_features)
        assert_close(model.logits(encoding.hidden[row, :num_tokens]), plain.logits(hidden))
        for found, (keys, values) in zip(encoding.layers, layers, strict=True):
            assert_close(found[0][row, :, :num_tokens].transpose(0, 1), keys)
            assert_close(found[1][row, :, :num_tokens].transpose(0, 1), values)
        expected = act_plainly(plain, one, layers, noise[row])
        assert_close(velocity[row], expected[0])
        assert_close(actions[row], expected[1])


def act(model: MolmoAct2, inputs: ModelInputs, encoding: Encoding, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The velocity at the noise when the last two steps are padding, and the actions."""
    assert model.action_expert is not None
    context = model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
    valid_steps = torch.tensor([[True] * 4 + [False] * 2]).expand(2, -1)
    at_noise = model.modulation(torch.tensor([0.3, 0.3])[:, None])
    velocity = model.action_expert.velocity(noise[:, None], at_noise, context, valid_steps)[:, 0]
    grid = model.modulation(flow.time_grid(NUM_STEPS))
    return velocity, model.sample_actions(noise, context, grid, action_dim=ACTION_DIM)


def act_plainly(plain: PlainNetwork, inputs: ModelInputs, layers: Layers, noise: Tensor) -> tuple[Tensor, Tensor]:
    context = plain.expert_context(layers, inputs.token_ids[0].tolist())
    velocity = plain.velocity(noise, 0.3, context, [True] * 4 + [False] * 2)
    return velocity, plain.actions(noise, context, num_steps=NUM_STEPS, action_dim=ACTION_DIM)


def assert_close(found: Tensor, expected: Tensor):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=RELATIVE * float(expected.abs().max()))


def test_written_and_read_back_key_for_key(model: MolmoAct2, tmp_path: Path):
    save_model(model, tmp_path)
    config = read_config(config_as_json(model.config))
    assert config == model.config
    again = load_model(tmp_path, config)
    expected = dict(model.named_parameters())
    found = dict(again.named_parameters())
    assert list(found) == list(expected)
    for name, parameter in found.items():
        assert torch.equal(parameter, expected[name]), name
    again_path = tmp_path / "again"
    again_path.mkdir()
    save_model(again, again_path)
    assert (again_path / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_tied_embeddings_are_one_tensor(tmp_path: Path):
    config = small_config(text_config={"tie_word_embeddings": True})
    save_model(random_model(config, seed=0), tmp_path)
    model = load_model(tmp_path, config)
    assert model.lm_head.weight is model.text.embedding


def test_only_layers_that_are_read_exist():
    names: Mapping[str, Tensor] = dict(MolmoAct2(small_config(adapter_config={"vit_layers": (-2,)})).named_parameters())
    assert {name.split(".")[2] for name in names if name.startswith("vision.blocks.")} == {"0", "1"}
