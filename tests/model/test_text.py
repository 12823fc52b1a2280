"""Embeddings of two tables, and rotary positions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.layers import rotary_angles, rotate
from molmoact2.model.text import TextDecoder
from molmoact2.testing import TINY, random_model, vary
from small_networks import IMAGE_PATCH, prompts, single, small_config


def decoder(vocab_size: int, additional: int) -> TextDecoder:
    text = TextDecoder(vary(TINY.text_config, {"vocab_size": vocab_size, "additional_vocab_size": additional}))
    text.embedding.data = torch.arange(vocab_size).float()[:, None].repeat(1, 32)
    text.new_embedding.data = vocab_size + torch.arange(additional).float()[:, None].repeat(1, 32)
    return text


@pytest.mark.parametrize(("vocab_size", "additional"), [(5, 3), (8, 0), (1, 7)])
def test_two_tables_are_one(vocab_size: int, additional: int):
    ids = torch.tensor([[0, 7, 3, 4], [5, 6, 1, 2]])
    embedded = decoder(vocab_size, additional).embed(ids)
    assert embedded.shape == (2, 4, 32)
    assert torch.equal(embedded, ids.float()[..., None].expand(-1, -1, 32))


def test_gradients_reach_the_rows_that_were_looked_up_and_no_other():
    text = decoder(5, 3)
    text.embed(torch.tensor([[1, 6]])).sum().backward()
    assert text.embedding.grad is not None
    assert text.new_embedding.grad is not None
    assert text.embedding.grad[:, 0].tolist() == [0, 1, 0, 0, 0]
    assert text.new_embedding.grad[:, 0].tolist() == [0, 1, 0]


def test_image_features_are_added_to_image_patches_in_order():
    model = random_model(small_config(), seed=0).requires_grad_(False)
    inputs = prompts(model.config)
    features = torch.randn(len(inputs.pooling), 32, generator=torch.Generator().manual_seed(0))
    expected, remaining = model.text.embed(inputs.token_ids), iter(features)
    for row, column in inputs.valid.nonzero().tolist():
        if inputs.token_ids[row, column] == IMAGE_PATCH:
            expected[row, column] += next(remaining)
    assert next(remaining, None) is None
    assert torch.equal(model.embed(inputs, features), expected)


def test_words_alone_are_only_embedded():
    model = random_model(small_config(), seed=0).requires_grad_(False)
    inputs = single(prompts(model.config, num_images=(0,), num_words=(4,)), 0, (0,))
    assert torch.equal(model.embed(inputs, torch.zeros(0, 32)), model.text.embed(inputs.token_ids))


@given(distance=st.integers(-20, 20), start=st.integers(20, 60), theta=st.sampled_from([100.0, 1e4, 1e6]))
def test_rotated_products_depend_on_the_distance_only(distance: int, start: int, theta: float):
    """Angles up to 100 rad are exact to 4e-6 in float32; products of 8 values near 1."""
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(start)).unbind()

    def product(first: int) -> torch.Tensor:
        at = [rotary_angles(torch.tensor([[position]]), 8, theta) for position in (first, first + distance)]
        return (rotate(query, at[0]) * rotate(key, at[1])).sum()

    torch.testing.assert_close(product(start), product(start + 13), rtol=0, atol=1e-4)


def test_rotation_keeps_lengths_and_begins_at_the_identity():
    x = torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    angles = rotary_angles(torch.arange(9).expand(2, -1), 8, 10_000.0)
    rotated = rotate(x, angles)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)
    assert torch.equal(rotated[:, :, 0], x[:, :, 0])


def test_halves_are_rotated_against_each_other_by_known_angles():
    angles = rotary_angles(torch.tensor([[3]]), 4, 100.0)
    first, second = 3.0, 3.0 / math.sqrt(100.0)
    rotated = rotate(torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]]), angles).flatten()
    expected = [math.cos(first), -2 * math.sin(second), math.sin(first), 2 * math.cos(second)]
    torch.testing.assert_close(rotated, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_bfloat16_heads_are_rotated_in_float32():
    x = torch.randn(1, 1, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    angles = rotary_angles(torch.arange(5)[None], 8, 10_000.0)
    assert torch.equal(rotate(x, angles), rotate(x.float(), angles).bfloat16())


def test_padding_takes_no_position():
    """Positions count what is valid: shown by padding on the left, which no caller does."""
    model = random_model(small_config(), seed=0).requires_grad_(False)
    inputs = single(prompts(model.config, num_images=(0,), num_words=(4,)), 0, (0,))
    shifted = {
        name: torch.nn.functional.pad(vars(inputs)[name], (2, 0)) for name in ("token_ids", "valid", "image_mask")
    }
    padded = type(inputs)(**shifted, crops=inputs.crops, pooling=inputs.pooling)
    none = torch.zeros(0, 32)
    expected, found = model.read(inputs, none), model.read(padded, none)
    torch.testing.assert_close(found.hidden[:, 2:], expected.hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.layers[1][0][:, :, 2:], expected.layers[1][0], rtol=1e-5, atol=1e-5)
