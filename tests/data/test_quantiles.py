"""Pooled statistics are what numpy says about all the data at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data.quantiles import averaging_error, order_statistics, pooled, pooled_statistics
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.statistics import QUANTILES, column_statistics

finite = st.floats(allow_nan=False, allow_infinity=False, width=32, min_value=-(2.0**99), max_value=2.0**99)


def parts_of(lengths: list[int], width: int, seed: int, dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, width)) * 10.0 ** rng.integers(-9, 9)).round(3).astype(dtype) for n in lengths]


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(any),
    width=st.integers(1, 3),
    seed=st.integers(0, 999),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_same_as_numpy_over_everything(lengths, width, seed, dtype):
    parts = parts_of(lengths, width, seed, dtype)
    whole = np.concatenate(parts).astype(np.float64)
    stats = pooled(parts)
    for name, q in QUANTILES.items():
        np.testing.assert_array_equal(stats[name], np.quantile(whole, q, axis=0))
    for name in ("min", "max"):
        np.testing.assert_array_equal(stats[name], getattr(whole, name)(axis=0))
    scale = np.abs(whole).max()
    np.testing.assert_allclose(stats["mean"], whole.mean(axis=0), rtol=1e-12, atol=1e-14 * scale)
    np.testing.assert_allclose(stats["std"], whole.std(axis=0), rtol=1e-9, atol=1e-14 * scale)
    assert stats["count"].tolist() == [len(whole)]


@given(values=st.lists(finite, min_size=1, max_size=40), dtype=st.sampled_from(["float32", "float64"]))
def test_every_rank_is_found(values, dtype):
    column = np.array(values, dtype)[:, None]
    ranks = np.arange(len(column))
    found = order_statistics([column[::2], column[1::2]], ranks, np.dtype(dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.sort(column, axis=0))


def test_dtypes_are_mixed_without_loss():
    parts = [np.float32([[0.1], [3]]), np.float64([[0.1], [2]])]
    assert pooled(parts)["q50"] == np.quantile(np.concatenate(parts), 0.5)


def test_one_dataset_gives_its_own_statistics(recorded_once):
    dataset = LeRobotDataset(recorded_once)
    both = pooled_statistics([dataset])
    for name, column in (("state", dataset.states), ("action", dataset.actions)):
        for key, value in column_statistics(column).items():
            np.testing.assert_allclose(both[name][key], value, rtol=1e-12, atol=1e-15)


def test_parts_may_be_read_anew_each_time():
    class ReadAnew:
        num_reads = 0

        def __iter__(self):
            self.num_reads += 1
            yield from parts_of([5, 7], 2, 0, "float32")

    parts = ReadAnew()
    stats = pooled(parts)
    np.testing.assert_array_equal(stats["q50"], pooled(list(parts))["q50"])
    assert parts.num_reads <= 5


def test_averages_of_quantiles_are_off():
    low, high = np.zeros((99, 1)), np.full((1, 1), 10.0)
    exact = pooled([low, high])
    error = averaging_error([column_statistics(low), column_statistics(high)], exact)
    averaged = 0.99 * 0 + 0.01 * 10
    np.testing.assert_allclose(error["q01"], averaged / (exact["q99"] - exact["q01"]))
    same = averaging_error([column_statistics(low)] * 2, pooled([low, low]))
    assert all((value == 0).all() for value in same.values())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([np.zeros((0, 2))], "no frames"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], r"\[2, 3\]"),
        ([np.array([[np.nan]])], "NaN"),
    ],
)
def test_what_has_no_statistics_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        pooled(parts)
