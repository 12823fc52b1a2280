"""Losses are sums over what is valid, against loops and torch: padding counts for nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.losses import flow_loss, language_losses, masked_sum

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
def test_flow_loss_is_the_sum_over_the_elements_one_by_one(shape: tuple[int, int, int, int], seed: int):
    velocity, target, valid, action_dim = example(shape, seed)
    errors = [
        float(velocity[b, k, h, a] - target[b, k, h, a]) ** 2
        for b in range(shape[0])
        for k in range(shape[1])
        for h in range(shape[2])
        for a in range(shape[3])
        if valid[b, h] and a < action_dim[b]
    ]
    assert float(flow_loss(velocity, target, valid, action_dim)) == pytest.approx(sum(errors), rel=1e-5)


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


def test_the_sum_of_nothing_is_zero_and_so_is_its_gradient():
    values = torch.tensor([1.0, torch.nan]).requires_grad_()
    total = masked_sum(values, torch.tensor([False, False]))
    total.backward()
    assert total == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.0]


@given(values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), bits=st.integers(0, 511))
def test_masked_sum_is_the_sum_of_what_is_left(values: list[float], bits: int):
    kept = [value for place, value in enumerate(values) if bits >> place & 1]
    mask = torch.tensor([bool(bits >> place & 1) for place in range(len(values))])
    assert float(masked_sum(torch.tensor(values), mask)) == pytest.approx(sum(kept), rel=1e-4, abs=1e-4)


def test_bfloat16_is_compared_in_float32():
    velocity, target = torch.tensor([256.0]).bfloat16(), torch.tensor([255.0]).bfloat16()
    loss = flow_loss(velocity.view(1, 1, 1, 1), target.view(1, 1, 1, 1), torch.tensor([[True]]), torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert loss == 1


@given(count=st.integers(0, 7), num_words=st.integers(1, 9), seed=st.integers(0, 999))
def test_language_loss_is_torchs_cross_entropy_with_weights(count: int, num_words: int, seed: int):
    logits, weight = 5 * some(seed, count, num_words), some(seed + 1, count).abs()
    token_id = torch.randint(0, num_words, (count,), generator=torch.Generator().manual_seed(seed))
    language, z = language_losses(logits, token_id, weight)
    expected = torch.nn.functional.cross_entropy(logits, token_id, reduction="none") if count else torch.zeros(0)
    torch.testing.assert_close(language, (weight * expected).sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z, (weight * logits.exp().sum(-1).log() ** 2).sum(), rtol=1e-4, atol=1e-5)


def test_the_softmaxs_denominator_in_closed_form():
    """v equal logits c: the cross-entropy is log v whatever c is, the log of the denominator c + log v."""
    logits = torch.tensor([[2.0] * 8, [-1.0] * 8])
    language, z = language_losses(logits, torch.tensor([0, 7]), torch.tensor([1.0, 0.5]))
    log_8 = torch.tensor(8.0).log()
    torch.testing.assert_close(language, 1.5 * log_8)
    torch.testing.assert_close(z, (2 + log_8) ** 2 + 0.5 * (log_8 - 1) ** 2)


def test_gradients_of_words_are_probabilities_minus_the_word():
    logits, weight = some(0, 3, 5).requires_grad_(), torch.tensor([1.0, 0.0, 2.0])
    token_id = torch.tensor([1, 2, 4])
    language_losses(logits, token_id, weight)[0].backward()
    expected = weight[:, None] * (logits.softmax(-1) - torch.nn.functional.one_hot(token_id, 5))
    torch.testing.assert_close(logits.grad, expected.detach(), rtol=1e-5, atol=1e-6)
