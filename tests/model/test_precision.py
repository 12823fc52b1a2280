"""bfloat16 flows from end to end, and float32 is kept where `layers.py` says so."""

from pathlib import Path

import pytest
import torch

from molmoact2.model import flow
from molmoact2.model.action_expert import TimeEmbedding
from molmoact2.model.layers import LayerNorm, Linear, RMSNorm, rms_normalize
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.weights import load_model, save_model
from molmoact2.testing import random_model
from small_networks import GRID, prompts, small_config

VARIATIONS = {
    "small": {},
    "gated": {"action_expert_depth_gate": True},
    "olmo_after": {"text_config": {"norm_after": True, "qk_norm_type": "olmo", "qkv_bias": True}},
    "tied": {"text_config": {"tie_word_embeddings": True}},
    "bare_expert": {"action_expert_config": {"rope": False, "qk_norm": False, "context_layer_norm": False}},
}


@pytest.fixture(params=VARIATIONS)
def exact(request: pytest.FixtureRequest) -> MolmoAct2:
    """A float32 network of weights that bfloat16 holds too."""
    model = random_model(small_config(**VARIATIONS[request.param]), seed=0).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    return model


def everything(model: MolmoAct2, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What a policy computes, stage by stage, in the compute dtype `dtype`."""
    inputs = prompts(model.config)
    features = model.image_features(inputs, GRID, dtype)
    encoding = model.read(inputs, features)
    context = model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
    modulation = model.modulation(flow.time_grid(3), dtype)
    noise = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    return {
        "features": features,
        "hidden": encoding.hidden,
        "key": encoding.layers[-1][0],
        "value": encoding.layers[-1][1],
        "context_key": context.layers[-1][0],
        "context_value": context.layers[-1][1],
        "modulation": modulation.blocks,
        "logits": model.logits(encoding.hidden),
        "actions": model.sample_actions(noise, context, modulation, action_dim=5),
    }


def test_bfloat16_flows_from_end_to_end(exact: MolmoAct2, tmp_path: Path):
    """Each of about 30 roundings to 8 bits costs up to 2^-9: together a few percent of the typical value."""
    save_model(exact, tmp_path)
    rounded = load_model(tmp_path, exact.config, dtype=torch.bfloat16)
    expected, found = everything(exact, torch.float32), everything(rounded, torch.bfloat16)
    for name, tensor in found.items():
        assert tensor.dtype == (torch.float32 if name in ("logits", "actions") else torch.bfloat16), name
        error = (tensor.float() - expected[name]).square().mean() / expected[name].square().mean()
        assert error.sqrt() < 0.06, name


def test_float32_weights_compute_in_bfloat16_what_bfloat16_weights_do(exact: MolmoAct2):
    """The positions are resized in float32 in both."""
    one = everything(exact, torch.bfloat16)
    other = everything(random_model(exact.config, seed=0).requires_grad_(False).bfloat16(), torch.bfloat16)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_linear_layers_compute_in_the_dtype_of_their_input():
    layer = Linear(3, 2)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("norm", [LayerNorm(64), RMSNorm(64, 1e-6), lambda x: rms_normalize(x, 1e-6)])
def test_norms_are_computed_in_float32(norm):
    """Squares of 300 would leave no room for their neighbours in bfloat16; the result is rounded only once."""
    x = (300 + torch.randn(5, 64, generator=torch.Generator().manual_seed(0))).bfloat16()
    assert torch.equal(norm(x), norm(x.float()).bfloat16())


def test_times_are_embedded_in_float32():
    embedding = TimeEmbedding(small_config().action_expert_config).bfloat16()
    assert embedding(torch.tensor([0.25])).dtype == torch.float32
    near, nearer = embedding(torch.tensor([0.5, 0.5001])).unbind()
    assert not torch.equal(near, nearer)
