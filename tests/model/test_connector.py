"""Pooling against a loop over windows. float32 sums of a few dozen products: equal to 1e-6 of values near 1."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.connector import AttentionPooling, Connector
from molmoact2.testing import TINY
from slow_twins import attend_one_by_one

FEATURE_WIDTH, NUM_PATCHES = 6, 9
WINDOWS = st.lists(
    st.lists(st.integers(-1, NUM_PATCHES - 1), min_size=4, max_size=4).filter(lambda window: max(window) >= 0),
    min_size=1,
    max_size=5,
)


def random_pooling(*, is_masked: bool, key_heads: int) -> AttentionPooling:
    config = replace(TINY.adapter_config, pooling_attention_mask=is_masked, num_key_value_heads=key_heads)
    pooling = AttentionPooling(config, FEATURE_WIDTH).requires_grad_(False)
    for number, parameter in enumerate(pooling.parameters()):
        parameter.normal_(std=0.4, generator=torch.Generator().manual_seed(number))
    return pooling


def pool_one_by_one(pooling: AttentionPooling, features: torch.Tensor, window: list[int]) -> torch.Tensor:
    """One window: patches that it lacks are left out if they are masked, else they count as zeros."""
    lacking = [] if pooling.is_masked else [torch.zeros(FEATURE_WIDTH)] * window.count(-1)
    tokens = torch.stack([features[index] for index in window if index >= 0] + lacking)
    query, key, value = (
        layer(x).unflatten(-1, (-1, pooling.head_dim)).transpose(0, 1)[None]
        for layer, x in (
            (pooling.query, tokens.mean(dim=0, keepdim=True)),
            (pooling.key, tokens),
            (pooling.value, tokens),
        )
    )
    everything = torch.ones(1, 1, 1, len(tokens), dtype=torch.bool)
    return pooling.out(attend_one_by_one(query, key, value, everything).flatten())


@given(windows=WINDOWS, is_masked=st.booleans(), key_heads=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_every_window_is_pooled_by_itself(windows: list[list[int]], is_masked: bool, key_heads: int, seed: int):
    pooling = random_pooling(is_masked=is_masked, key_heads=key_heads)
    features = torch.randn(NUM_PATCHES, FEATURE_WIDTH, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([pool_one_by_one(pooling, features, window) for window in windows])
    torch.testing.assert_close(pooling(features, torch.tensor(windows)), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("is_masked", "same"), [(True, True), (False, False)])
def test_what_a_window_lacks_counts_only_without_a_mask(is_masked: bool, same: bool):
    pooling = random_pooling(is_masked=is_masked, key_heads=4)
    features = torch.randn(NUM_PATCHES, FEATURE_WIDTH, generator=torch.Generator().manual_seed(0))
    short, filled = pooling(features, torch.tensor([[3, 4]])), pooling(features, torch.tensor([[3, -1, 4, -1]]))
    assert torch.allclose(short, filled, atol=1e-6) == same


def test_windows_index_the_crops_one_after_the_other():
    connector = Connector(TINY.adapter_config, FEATURE_WIDTH).requires_grad_(False)
    crops = torch.randn(2, NUM_PATCHES, FEATURE_WIDTH, generator=torch.Generator().manual_seed(0))
    window = torch.tensor([[0, 1, 3, 4]])
    second = connector(crops[1:], window)
    torch.testing.assert_close(connector(crops, window + NUM_PATCHES), second, rtol=0, atol=0)


def test_no_images_give_no_features():
    connector = Connector(TINY.adapter_config, FEATURE_WIDTH)
    assert connector(torch.zeros(0, NUM_PATCHES, FEATURE_WIDTH), torch.zeros(0, 4, dtype=torch.long)).shape == (0, 32)
