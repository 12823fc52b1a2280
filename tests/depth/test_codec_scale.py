"""From depth to levels and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.depth.scale import DepthScale, check_depth, depth_of, levels_of, nearest_pixels, resized

RANDOM = np.random.default_rng(0)
DEPTH = RANDOM.uniform(0.2, 3, (5, 12, 16)).astype(np.float32)


def reference_levels(depth: np.ndarray) -> np.ndarray:
    """The reference's quantisation (training.md G), a map and a pixel at a time."""
    levels = np.empty(depth.shape, np.uint8)
    for index, one in enumerate(depth):
        low, high = one.min(), one.max()
        for place, value in np.ndenumerate(one):
            share = np.float32(value - low) / np.float32(np.float32(high - low) + np.float32(1e-8))
            levels[index][place] = int(np.float32(share * np.float32(255)))
    return levels


def test_levels_of_the_reference():
    limits = DepthScale().limits(DEPTH)
    np.testing.assert_array_equal(levels_of(DEPTH, limits), reference_levels(DEPTH))


def test_levels_are_cut_off_not_rounded():
    depth = np.float32([[[0, 1.999, 2, 254.999, 255]]])
    np.testing.assert_array_equal(levels_of(depth, np.float32([[0, 255]])), [[[0, 1, 2, 254, 255]]])


def test_a_map_of_one_depth_is_all_low():
    flat = np.full((2, 4, 4), 0.7, np.float32)
    assert not levels_of(flat, DepthScale().limits(flat)).any()


def test_limits_of_each_kind():
    each = np.stack([DEPTH.min(axis=(1, 2)), DEPTH.max(axis=(1, 2))], axis=1)
    np.testing.assert_array_equal(DepthScale(kind="frame").limits(DEPTH), each)
    np.testing.assert_array_equal(DepthScale(kind="episode").limits(DEPTH), np.tile([DEPTH.min(), DEPTH.max()], (5, 1)))
    fixed = DepthScale(kind="fixed", low=0.25, high=0.75).limits(DEPTH)
    np.testing.assert_array_equal(fixed, np.tile(np.float32([0.25, 0.75]), (5, 1)))
    assert fixed.dtype == np.float32


def test_a_fixed_scale_clamps():
    scale = DepthScale(kind="fixed", low=1.0, high=2.0)
    depth = np.float32([[[-5, 0.99, 1, 2, 2.01, 1e30]]])
    np.testing.assert_array_equal(levels_of(depth, scale.limits(depth)), [[[0, 0, 0, 255, 255, 255]]])


@given(
    kind=st.sampled_from(["frame", "episode", "fixed"]),
    seed=st.integers(0, 2**32),
    offset=st.floats(-10, 10),
    span=st.floats(0.01, 100),
)
def test_coming_back_costs_at_most_half_a_level(kind, seed, offset, span):
    depth = np.float32(offset + span * np.random.default_rng(seed).random((3, 6, 5)))
    ends = {"low": float(offset - 0.1 * span), "high": float(offset + 1.1 * span)}
    scale = DepthScale(kind=kind, **(ends if kind == "fixed" else {}))
    limits = scale.limits(depth)
    back = depth_of(levels_of(depth, limits) / np.float32(255), limits)
    level = (limits[:, 1] - limits[:, 0])[:, None, None] / 255
    rounding = 1e-5 * (abs(offset) + span)
    assert (np.abs(back - depth) <= 0.5 * level + rounding).all()


@given(seed=st.integers(0, 2**32), scale=st.sampled_from(["frame", "episode"]))
def test_nearer_never_gets_a_higher_level(seed, scale):
    depth = np.random.default_rng(seed).normal(size=(1, 7, 7)).astype(np.float32)
    levels = levels_of(depth, DepthScale(kind=scale).limits(depth))
    order = depth.ravel().argsort()
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()
    assert levels.min() == 0
    assert levels.max() >= 254


@pytest.mark.parametrize(
    ("length", "behind"),
    [(26, [160]), (36, [240]), (128, []), (144, [60, 100, 120, 140, 180, 200, 220, 240, 260, 280]), (720, [])],
)
def test_nearest_pixels_of_opencv(length: int, behind: list[int]):
    """Recorded from OpenCV 5.0.0, INTER_NEAREST to 320 pixels: it rounds the ratio first, and so falls behind.

    The rule gave its pixels for all lengths below 2,200 and the sizes 32, 64, 160, 224 and 320.
    """
    expected = np.arange(320) * length // 320
    expected[behind] -= 1
    np.testing.assert_array_equal(nearest_pixels(length, 320), expected)


@given(length=st.integers(1, 2000), size=st.sampled_from([32, 320]))
def test_nearest_pixels_are_in_order_and_inside(length, size):
    pixels = nearest_pixels(length, size)
    assert pixels[0] == 0
    assert pixels[-1] < length
    assert (np.diff(pixels) >= 0).all()
    assert np.abs(pixels - np.arange(size) * length / size).max() <= 1


def test_resizing_against_loops():
    maps = RANDOM.integers(0, 256, (2, 48, 80), dtype=np.uint8)
    small = resized(maps, 32)
    for row in range(32):
        for column in range(32):
            np.testing.assert_array_equal(small[:, row, column], maps[:, row * 48 // 32, column * 80 // 32])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"kind": "fixed"}, "has both limits"),
        ({"kind": "fixed", "low": 1.0}, "has both limits"),
        ({"kind": "frame", "low": 0.0, "high": 1.0}, "none otherwise"),
        ({"kind": "episode", "high": 1.0}, "none otherwise"),
        ({"kind": "fixed", "low": 1.0, "high": 1.0}, "below the upper one"),
        ({"kind": "fixed", "low": 0.0, "high": np.inf}, "below the upper one"),
        ({"kind": "fixed", "low": np.nan, "high": 1.0}, "below the upper one"),
    ],
)
def test_scales_that_cannot_be(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        DepthScale(**fields)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_pixels_are_named(bad):
    depth = DEPTH.copy()
    depth[3, 2, 1] = bad
    with pytest.raises(ValueError, match="Frame 3 of the depth has 1 pixels that are NaN or infinite"):
        check_depth(depth)


@pytest.mark.parametrize(
    "depth",
    [DEPTH[0], DEPTH[None], DEPTH.astype(np.float64), np.zeros((2, 3, 3), np.uint16), DEPTH[:0], DEPTH[:, :0]],
    ids=["one map", "four dimensions", "float64", "uint16", "no frames", "no rows"],
)
def test_what_is_no_depth(depth):
    with pytest.raises(ValueError, match="must be one float32 array"):
        check_depth(depth)
