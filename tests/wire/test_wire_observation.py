"""An observation of any dialect: what is refused, and with which advice."""

from dataclasses import replace

import numpy as np
import pytest

from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.observation import checked_observation

LIMITS = Limits(num_text=20, num_images=2, image_pixels=100, image_side=50, num_values=8)
PIXELS = np.zeros((4, 5, 3), np.uint8)
STATE = np.zeros(6, np.float32)


def refused(images: object, state: object, instruction: object) -> str:
    with pytest.raises(WireError) as caught:
        checked_observation(images, state, instruction, LIMITS)
    return str(caught.value)


def test_a_good_observation_is_taken_as_it_is():
    found = checked_observation({"front": PIXELS}, STATE, "wave", LIMITS)
    assert found.images["front"] is PIXELS  # type: ignore[call-overload]
    assert found.state is STATE
    assert found.instruction == "wave"


def test_whole_numbers_are_a_state_too():
    assert checked_observation({"front": PIXELS}, np.arange(3), "wave", LIMITS).state.dtype == np.float64


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        ({}, "images: there must be 1 to 2, by the name of their camera, got 0."),
        ([PIXELS], "images: there must be 1 to 2, by the name of their camera, got list."),
        ({"a": PIXELS, "b": PIXELS, "c": PIXELS}, "got 3"),
        ({" ": PIXELS}, "images: it must be text"),
        ({7: PIXELS}, "images: it must be text"),
        ({b"a": PIXELS}, "images: it must be text"),
        ({"a": PIXELS / 255}, "images.a: an image must be uint8 [height, width, 3], got float64 [4, 5, 3]. Send uint8"),
        ({"a": PIXELS.astype(np.int8)}, "uint8"),
        ({"a": PIXELS[..., 0]}, "RGB"),
        ({"a": PIXELS.transpose(2, 0, 1)}, "RGB"),
        ({"a": np.dstack([PIXELS, PIXELS[..., :1]])}, "RGB"),
        ({"a": PIXELS[:0]}, "RGB"),
        ({"a": "front.png"}, "array"),
        (
            {"a": np.zeros((11, 10, 3), np.uint8)},
            "images.a: an image has up to 100 pixels and 50 on a side, got 11 x 10",
        ),
        ({"a": np.zeros((51, 1, 3), np.uint8)}, "50 on a side"),
    ],
)
def test_images(images: object, complaint: str):
    assert complaint in refused(images, STATE, "wave")


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        ([0.0, 1.0], "array"),
        (STATE[None], "got float32 [1, 6]"),
        (np.zeros(0), "1 to 8 numbers, got 0"),
        (np.zeros(9), "1 to 8 numbers, got 9"),
        (np.array([0, np.nan, 1, np.inf]), "dimensions [1, 3]"),
        (np.zeros(3, np.bool_), "bool"),
        (np.zeros(3, np.complex64), "complex64"),
        (np.array(["a"]), "state"),
    ],
)
def test_state(state: object, complaint: str):
    assert complaint in refused({"a": PIXELS}, state, "wave")


@pytest.mark.parametrize("instruction", ["", " \n", None, b"wave", 5, "x" * 21, "half \ud800"])
def test_instruction(instruction: object):
    assert refused({"a": PIXELS}, STATE, instruction).startswith("instruction: it must be")


def test_limits_are_reached_and_not_passed():
    limits = replace(LIMITS, num_text=4)
    assert checked_observation({"four": np.zeros((10, 10, 3), np.uint8)}, np.zeros(8), "wave", limits)
