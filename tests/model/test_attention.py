"""Attention and its masks against loops. float32 sums of at most 9 products each: equal to 1e-6."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.attention import KeyValueCache, attend, prompt_mask
from slow_twins import attend_one_by_one


def heads(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def some_mask(seed: int, *shape: int) -> torch.Tensor:
    """At random, but every query sees at least one key."""
    mask = heads(seed, *shape) > 0
    mask[..., seed % shape[-1]] = True
    return mask


@given(
    batch=st.integers(1, 3),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    num_queries=st.integers(1, 5),
    num_keys=st.integers(1, 9),
    masking=st.sampled_from(["none", "per prompt", "shared", "keys only"]),
    learns=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_head_and_query_looks_by_itself(
    batch: int, key_heads: int, group: int, num_queries: int, num_keys: int, masking: str, learns: bool, seed: int
):
    query = heads(seed, batch, key_heads * group, num_queries, 4).requires_grad_(learns)
    key, value = heads(seed + 1, 2, batch, key_heads, num_keys, 4)
    mask = {
        "none": None,
        "per prompt": some_mask(seed, batch, 1, num_queries, num_keys),
        "shared": some_mask(seed, 1, 1, num_queries, num_keys),
        "keys only": some_mask(seed, batch, 1, 1, num_keys),
    }[masking]
    everything = torch.ones(1, 1, num_queries, num_keys, dtype=torch.bool)
    expected = attend_one_by_one(query.detach(), key, value, everything if mask is None else mask)
    torch.testing.assert_close(attend(query, key, value, mask), expected, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_loop():
    mask, found, expected = some_mask(0, 2, 1, 3, 5), [], []
    for attention, gradients in ((attend, found), (attend_one_by_one, expected)):
        parts = [heads(0, 2, 4, 3, 6), heads(1, 2, 2, 5, 6), heads(2, 2, 2, 5, 6)]
        leaves = [part.requires_grad_() for part in parts]
        gradients += torch.autograd.grad(attention(*leaves, mask).square().sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("learns", [False, True])
def test_bfloat16_comes_out_as_it_went_in(learns: bool):
    """Softmax in float32 of products that may be rounded to 8 bits: an error of a few 2^-8."""
    query, key, value = heads(0, 3, 2, 4, 7, 8, dtype=torch.bfloat16)
    mask = torch.ones(1, 1, 7, 7, dtype=torch.bool).tril()
    found = attend(query.requires_grad_(learns), key, value, mask)
    assert found.dtype == torch.bfloat16
    exact = attend(query.detach().float(), key.float(), value.float(), mask)
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.03)


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3), image_bits=st.integers(0, 127))
def test_prompt_mask_is_the_drawn_one(lengths: list[int], image_bits: int):
    num_tokens = max(lengths)
    valid = torch.tensor([[token < length for token in range(num_tokens)] for length in lengths])
    is_image = torch.tensor([bool(image_bits >> token & 1) for token in range(num_tokens)]).expand_as(valid)
    mask = prompt_mask(is_image & valid, valid)
    assert mask.shape == (len(lengths), 1, num_tokens, num_tokens)
    for row, length in enumerate(lengths):
        for query in range(length):
            for key in range(num_tokens):
                among_images = bool(is_image[row, query] and is_image[row, key])
                assert mask[row, 0, query, key] == (key < length and (key <= query or among_images))


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), pieces=st.lists(st.integers(1, 3), max_size=3))
def test_extension_mask_is_causal_over_what_is_no_padding(lengths: list[int], pieces: list[int]):
    num_tokens = max(lengths)
    cache = KeyValueCache((1, len(lengths), 1, num_tokens + sum(pieces), 2), dtype=torch.float32, device="cpu")
    cache.reserve(torch.tensor([[token < length for token in range(num_tokens)] for length in lengths]))
    for piece in pieces:
        cache.reserve(torch.ones(len(lengths), piece, dtype=torch.bool))
        mask = cache.extension_mask(piece)
        assert mask.shape == (len(lengths), 1, piece, cache.length)
        for row, length in enumerate(lengths):
            for query in range(piece):
                for key in range(cache.length):
                    is_padding = length <= key < num_tokens
                    assert mask[row, 0, query, key] == (not is_padding and key <= cache.length - piece + query)


def test_a_full_cache_says_so():
    cache = KeyValueCache((1, 1, 1, 3, 2), dtype=torch.float32, device="cpu")
    cache.reserve(torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="holds 3 tokens; 4 were asked for"):
        cache.reserve(torch.ones(1, 2, dtype=torch.bool))
    assert cache.length == 2
