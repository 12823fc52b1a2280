"""Chunks are cut inside episodes, and what lies beyond an end is marked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data import action_chunks


def chunks_one_by_one(actions, starts, ends, horizon):
    """The slow twin: a loop over chunks and steps."""
    chunks = np.zeros((len(starts), horizon, actions.shape[1]), actions.dtype)
    is_pad = np.zeros((len(starts), horizon), bool)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for step in range(horizon):
            is_pad[row, step] = start + step >= end
            chunks[row, step] = actions[end - 1] if is_pad[row, step] else actions[start + step]
    return chunks, is_pad


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    horizon=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_same_as_a_loop(lengths, horizon, seed):
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(sum(lengths), 3)).astype(np.float32)
    starts = rng.integers(0, len(actions), 20)
    ends = np.repeat(np.cumsum(lengths), lengths)[starts]
    chunks, is_pad = action_chunks(actions, starts, ends, horizon)
    slow_chunks, slow_is_pad = chunks_one_by_one(actions, starts, ends, horizon)
    np.testing.assert_array_equal(chunks, slow_chunks)
    np.testing.assert_array_equal(is_pad, slow_is_pad)
    assert chunks.dtype == np.float32


def test_a_chunk_never_leaves_its_episode():
    actions = np.arange(8.0)[:, None]
    chunks, is_pad = action_chunks(actions, [3], 5, horizon=4)
    np.testing.assert_array_equal(chunks[0, :, 0], [3, 4, 4, 4])
    np.testing.assert_array_equal(is_pad, [[False, False, True, True]])


@pytest.mark.parametrize(
    ("starts", "ends", "horizon", "message"),
    [
        ([5], 5, 2, "starts at row 5"),
        ([-1], 5, 2, "starts at row -1"),
        ([0, 7], [5, 9], 2, "Chunk 1"),
        ([0], 5, 0, "horizon"),
    ],
)
def test_impossible_chunks_are_refused(starts, ends, horizon, message):
    with pytest.raises(ValueError, match=message):
        action_chunks(np.zeros((8, 2)), starts, ends, horizon)
