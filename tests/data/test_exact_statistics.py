"""Statistics are what numpy says over every single value."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data.statistics import QUANTILES, column_statistics, image_statistics, pixel_histogram


@given(num_frames=st.integers(1, 300), width=st.integers(1, 4), seed=st.integers(0, 999))
def test_columns(num_frames, width, seed):
    column = np.random.default_rng(seed).normal(size=(num_frames, width)).astype(np.float32)
    stats = column_statistics(column)
    exact = column.astype(np.float64)
    for name, q in QUANTILES.items():
        np.testing.assert_array_equal(stats[name], np.quantile(exact, q, axis=0))
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_array_equal(stats[name], getattr(exact, name)(axis=0))
    assert stats["count"].tolist() == [num_frames]


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), levels=st.integers(1, 256), seed=st.integers(0, 999)
)
def test_images_from_added_histograms(lengths, levels, seed):
    rng = np.random.default_rng(seed)
    episodes = [rng.integers(0, levels, (length, 3, 5, 3)).astype(np.uint8) for length in lengths]
    stats = image_statistics(np.sum([pixel_histogram(images) for images in episodes], axis=0), sum(lengths))
    pixels = np.concatenate(episodes).reshape(-1, 3) / 255
    for name, q in QUANTILES.items():
        np.testing.assert_allclose(stats[name][:, 0, 0], np.quantile(pixels, q, axis=0), atol=1e-12)
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(stats[name][:, 0, 0], getattr(pixels, name)(axis=0), atol=1e-12)
    assert stats["q50"].shape == (3, 1, 1)
    assert stats["count"].tolist() == [sum(lengths)]


def test_scalar_columns_have_one_value():
    assert column_statistics(np.array([1, 3]))["mean"].tolist() == [2.0]
