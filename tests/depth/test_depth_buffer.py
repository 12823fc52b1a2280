"""The buffer rule: fast against slow, and the change map of inference to the bit."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.depth import buffer, changed_cells
from molmoact2.depth.buffer import buffer_codes, updated_cells

SIDE = 4


def remembered(codes: np.ndarray, updated: np.ndarray) -> np.ndarray:
    """What a policy holds after each frame, one cell at a time."""
    memory, held = {}, np.empty_like(codes)
    for frame, cell in np.ndindex(codes.shape):
        memory[cell] = codes[frame, cell] if updated[frame, cell] else memory[cell]
        held[frame, cell] = memory[cell]
    return held


def still_life(num_frames: int, seed: int) -> np.ndarray:
    """Frames [n, 48, 64, 3] in which a square moves over a background that flickers a little."""
    rng = np.random.default_rng(seed)
    background = rng.integers(40, 200, (48, 64, 3))
    frames = background + rng.integers(-2, 3, (num_frames, 48, 64, 3))
    for number, frame in enumerate(frames):
        frame[8:20, 5 * (number // 2) : 5 * (number // 2) + 12] = (250, 20, 20)
    return frames.astype(np.uint8)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_buffer_is_what_a_policy_remembers(num_frames, num_cells, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, (num_frames, num_cells))
    updated = rng.random((num_frames, num_cells)) < 0.3
    updated[0] = True
    np.testing.assert_array_equal(buffer_codes(codes, updated), remembered(codes, updated))


def test_the_two_extremes():
    codes = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(buffer_codes(codes, np.ones((4, 3), bool)), codes)
    only_first = np.zeros((4, 3), bool)
    only_first[0] = True
    np.testing.assert_array_equal(buffer_codes(codes, only_first), np.repeat(codes[:1], 4, axis=0))


def test_a_buffer_needs_a_first_frame():
    with pytest.raises(AssertionError, match="begins without a memory"):
        buffer_codes(np.zeros((2, 3), np.int64), np.zeros((2, 3), bool))


@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_frames_are_compared_as_at_inference(num_frames):
    frames = still_life(num_frames, num_frames)
    updated = updated_cells(frames, side=SIDE)
    assert updated[0].all()
    for number, (before, after) in enumerate(pairwise(frames), start=1):
        np.testing.assert_array_equal(updated[number], changed_cells(before, after, side=SIDE))
    assert num_frames < 3 or 0 < updated[1:].mean() < 1


def test_each_frame_is_cut_once(monkeypatch):
    calls, cut = [], buffer.cells_of
    monkeypatch.setattr(buffer, "cells_of", lambda image, side: calls.append(side) or cut(image, side))
    updated_cells(still_life(5, 0), side=SIDE)
    assert calls == [SIDE] * 5


def test_an_episode_comes_as_a_stream():
    frames = still_life(4, 1)
    np.testing.assert_array_equal(updated_cells(iter(frames), side=SIDE), updated_cells(frames, side=SIDE))
