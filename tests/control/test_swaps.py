"""Cameras that change places are noticed, and nothing else is taken for it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.control.robot import Frame
from molmoact2.control.swaps import Swaps

SIZE = (48, 64, 3)
NAMES = ("front", "left", "wrist")


def picture(seed: int) -> np.ndarray:
    """A scene: large areas of colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def frames(*images: np.ndarray) -> dict[str, Frame]:
    return {name: Frame(image=image, time_s=0.0) for name, image in zip(NAMES, images, strict=False)}


def noisy(image: np.ndarray, rng: np.random.Generator, level: int) -> np.ndarray:
    return np.clip(image.astype(int) + rng.integers(-level, level + 1, SIZE), 0, 255).astype(np.uint8)


def test_two_of_three_are_swapped():
    swaps = Swaps(NAMES)
    one, two, three = (picture(seed) for seed in range(3))
    assert swaps.check(frames(one, two, three)) is None
    wrong = swaps.check(frames(three, two, one))
    assert wrong is not None
    assert "'front' and 'wrist'" in wrong
    assert swaps.check(frames(three, two, one)) is not None, "it stays wrong"
    assert swaps.check(frames(one, two, three)) is None, "until it is mended"


@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_neither_noise_nor_light_is_a_swap(seed: int, level: int):
    rng = np.random.default_rng(seed)
    swaps, views = Swaps(NAMES[:2]), [picture(seed), picture(seed + 1)]
    for _ in range(4):
        light = rng.uniform(0.6, 1.0)
        assert swaps.check(frames(*(noisy((light * view).astype(np.uint8), rng, level) for view in views))) is None


def test_one_camera_that_jumps_is_no_swap():
    swaps = Swaps(NAMES[:2])
    swaps.check(frames(picture(0), picture(1)))
    assert swaps.check(frames(picture(2), picture(1))) is None
    assert swaps.check(frames(picture(1), picture(1))) is None, "the other one still sees its own"


def test_pictures_that_are_alike_are_no_swap():
    swaps = Swaps(NAMES[:2])
    for _ in range(3):
        assert swaps.check(frames(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8))) is None


def test_missing_cameras_are_named():
    assert "'wrist'" in str(Swaps(NAMES).check(frames(picture(0), picture(1))))
    assert "any camera" in str(Swaps(()).check({}))
    assert Swaps(()).check(frames(picture(0))) is None, "any will do"


def test_cameras_of_other_sizes_are_told_apart_by_it():
    swaps = Swaps(NAMES[:2])
    small = picture(1)[:24, :32]
    swaps.check(frames(picture(0), small))
    wrong = swaps.check(frames(small, picture(0)))
    assert wrong is not None
