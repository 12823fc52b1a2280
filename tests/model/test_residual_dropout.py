"""Dropout of residual updates: none where the rate is zero, nothing on average, and a share of the updates else."""

import pytest
import torch

from molmoact2.model.text import drop
from molmoact2.testing import random_model
from small_networks import GRID, prompts, small_config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_of_zero_keeps_every_bit(dtype: torch.dtype):
    x = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert drop(x, None) is x
    kept = drop(x, torch.zeros(2, 3))
    assert kept.dtype == dtype
    assert torch.equal(kept, x)


def test_each_token_has_a_rate_of_its_own():
    torch.manual_seed(0)
    rates = torch.tensor([[0.0, 0.1, 0.5]])
    dropped = drop(torch.ones(1, 3, 200_000), rates)
    for token, rate in enumerate([0.0, 0.1, 0.5]):
        values = dropped[0, token].unique()
        assert values.tolist() == pytest.approx([0.0, 1 / (1 - rate)] if rate else [1.0])
        assert float((dropped[0, token] == 0).float().mean()) == pytest.approx(rate, abs=5e-3)
        assert float(dropped[0, token].mean()) == pytest.approx(1.0, abs=1e-2)


def test_the_gradient_is_dropped_with_the_value():
    torch.manual_seed(0)
    x = torch.ones(1, 1, 100, requires_grad=True)
    dropped = drop(x, torch.full((1, 1), 0.5))
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


@torch.no_grad()
@pytest.mark.parametrize("text", [{}, {"norm_after": True}], ids=["norm before", "norm after"])
def test_the_network_drops_where_it_is_told_to(text: dict):
    """Only later tokens, and image tokens, may notice what is dropped at a token."""
    model = random_model(small_config(text_config=text), seed=0)
    inputs = prompts(model.config)
    features = model.image_features(inputs, GRID)
    plain = model.read(inputs, features).hidden
    rates = torch.zeros(inputs.valid.shape)
    assert torch.equal(model.read(inputs, features, drop_rate=rates).hidden, plain)
    begin = int(inputs.image_mask[1].nonzero().max()) + 3
    rates[1, begin:] = 0.5
    torch.manual_seed(0)
    changed = model.read(inputs, features, drop_rate=rates).hidden
    assert torch.equal(changed[0], plain[0])
    assert torch.equal(changed[1, :begin], plain[1, :begin])
    is_said = inputs.valid[1] & (torch.arange(len(inputs.valid[1])) >= begin)
    assert (changed[1] != plain[1]).any(dim=-1)[is_said].all()
    torch.manual_seed(0)
    assert torch.equal(model.read(inputs, features, drop_rate=rates).hidden, changed)
