"""Losses are means over what is valid: padding counts neither above nor below the fraction line."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.losses import flow_loss, masked_mean

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 4))


def some(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def example(shape: tuple[int, int, int, int], seed: int) -> tuple[torch.Tensor, ...]:
    """Velocity, target, valid steps, action width."""
    batch, _, horizon, width = shape
    random = torch.Generator().manual_seed(seed)
    valid = torch.rand(batch, horizon, generator=random) > 0.3
    return some(seed, *shape), some(seed + 1, *shape), valid, torch.randint(1, width + 1, (batch,), generator=random)


@given(shape=SHAPES, seed=st.integers(0, 999))
def test_flow_loss_is_the_mean_over_the_elements_one_by_one(shape: tuple[int, int, int, int], seed: int):
    velocity, target, valid, action_dim = example(shape, seed)
    errors = [
        float(velocity[b, k, h, a] - target[b, k, h, a]) ** 2
        for b in range(shape[0])
        for k in range(shape[1])
        for h in range(shape[2])
        for a in range(shape[3])
        if valid[b, h] and a < action_dim[b]
    ]
    expected = sum(errors) / len(errors) if errors else 0.0
    assert float(flow_loss(velocity, target, valid, action_dim)) == pytest.approx(expected, rel=1e-5)


@given(shape=SHAPES, seed=st.integers(0, 999), steps=st.integers(0, 3), dimensions=st.integers(0, 3))
def test_padding_more_changes_nothing(shape: tuple[int, int, int, int], seed: int, steps: int, dimensions: int):
    velocity, target, valid, action_dim = example(shape, seed)
    more = torch.nn.functional.pad
    padded = flow_loss(
        more(velocity, (0, dimensions, 0, steps), value=1e6),
        more(target, (0, dimensions, 0, steps), value=torch.nan),
        more(valid, (0, steps)),
        action_dim,
    )
    torch.testing.assert_close(padded, flow_loss(velocity, target, valid, action_dim), rtol=1e-6, atol=0)


def test_padding_gets_no_gradient():
    velocity, target, _, _ = example((1, 1, 3, 3), 0)
    velocity.requires_grad_()
    flow_loss(velocity, target, torch.tensor([[True, True, False]]), torch.tensor([2])).backward()
    assert velocity.grad is not None
    assert (velocity.grad[0, 0, :2, :2] != 0).all()
    assert not velocity.grad[0, 0, 2].any()
    assert not velocity.grad[..., 2].any()


def test_the_mean_of_nothing_is_zero_and_so_is_its_gradient():
    values = torch.tensor([1.0, torch.nan]).requires_grad_()
    mean = masked_mean(values, torch.tensor([False, False]))
    mean.backward()
    assert mean == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


@given(values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), bits=st.integers(1, 511))
def test_masked_mean_is_the_mean_of_what_is_left(values: list[float], bits: int):
    kept = [value for place, value in enumerate(values) if bits >> place & 1]
    mask = torch.tensor([bool(bits >> place & 1) for place in range(len(values))])
    expected = sum(kept) / len(kept) if kept else 0.0
    assert float(masked_mean(torch.tensor(values), mask)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_bfloat16_is_compared_in_float32():
    velocity, target = torch.tensor([256.0]).bfloat16(), torch.tensor([255.0]).bfloat16()
    loss = flow_loss(velocity.view(1, 1, 1, 1), target.view(1, 1, 1, 1), torch.tensor([[True]]), torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert loss == 1
