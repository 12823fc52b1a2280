"""Units and frames of arms, and that every conversion leads back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmoact2.robots.calibration import (
    NEW_SO_FRAME,
    OLD_SO_FRAME,
    JointFrame,
    closed_from_width,
    possible_units,
    width_from_closed,
)

DEGREES = st.one_of(st.just(0.0), st.floats(2**-20, 360, width=32), st.floats(-360, -(2**-20), width=32))
FRACTIONS = st.floats(0, 1)


def test_old_calibration_as_it_is_documented():
    arm = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    model = [10.0, 70.0, 120.0, 40.0, 50.0, 60.0]
    assert OLD_SO_FRAME.to_model(arm).tolist() == model
    assert OLD_SO_FRAME.to_arm(model).tolist() == arm
    shoulder_lift, elbow_flex = 130.0, 75.0
    assert OLD_SO_FRAME.to_arm([0, shoulder_lift, elbow_flex, 0, 0, 0])[1] == -(shoulder_lift - 90)
    assert OLD_SO_FRAME.to_arm([0, shoulder_lift, elbow_flex, 0, 0, 0])[2] == elbow_flex - 90


def test_todays_calibration_changes_nothing():
    assert NEW_SO_FRAME.to_model([1.0, -2.0, 3.0, 4.0, 5.0, 6.0]).tolist() == [1.0, -2.0, 3.0, 4.0, 5.0, 6.0]


@given(arrays(np.float32, (3, 6), elements=DEGREES))
def test_there_and_back_is_exact(arm: np.ndarray):
    assert (OLD_SO_FRAME.to_arm(OLD_SO_FRAME.to_model(arm)) == arm).all()
    assert (OLD_SO_FRAME.to_model(OLD_SO_FRAME.to_arm(arm)) == arm).all()


@given(
    st.lists(st.sampled_from((-1, 1)), min_size=4, max_size=4),
    st.lists(st.integers(-180, 180), min_size=4, max_size=4),
    arrays(np.float32, 4, elements=DEGREES),
)
def test_any_frame_is_undone_exactly(signs: list[int], offsets: list[int], arm: np.ndarray):
    frame = JointFrame(signs=tuple(signs), offsets=tuple(map(float, offsets)))
    assert (frame.to_arm(frame.to_model(arm)) == arm).all()


@pytest.mark.parametrize(("signs", "offsets"), [((1, 2), (0.0, 0.0)), ((1, 0), (0.0, 0.0)), ((1,), (0.0, 0.0))])
def test_frame_that_cannot_be_undone_is_refused(signs: tuple[int, ...], offsets: tuple[float, ...]):
    with pytest.raises(ValueError, match="1 or -1"):
        JointFrame(signs=signs, offsets=offsets)


def test_grippers():
    assert closed_from_width([0.0, 0.085]).tolist() == [1.0, 0.0]
    assert width_from_closed([1.0, 0.0]).tolist() == [0.0, 0.085]


@given(FRACTIONS)
def test_gripper_conversions_are_undone(fraction: float):
    assert closed_from_width(width_from_closed(fraction)) == pytest.approx(fraction, abs=1e-12)


@pytest.mark.parametrize(
    ("joints", "units"),
    [
        ([0.1, -3.0], ("rad", "normalized", "deg")),
        ([7.0, -99.0], ("normalized", "deg")),
        ([0.0, -105.0], ("deg",)),
        ([], ("rad", "normalized", "deg")),
    ],
)
def test_units_by_the_largest_angle(joints: list[float], units: tuple[str, ...]):
    assert possible_units(joints) == units
