"""Augmentation does what the recipe says: nothing at zero strength, the same for one generator, each image alone."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from molmoact2.data.augmentation import Augmentation, blur, crop_and_rotate, shift_hue

NOTHING = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "blur_probability": 0}
IDENTITY = Augmentation(crop=1, rotation_deg=0, **NOTHING)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_zero_strength_changes_nothing(height, width, seed):
    image = noise(height, width, seed=seed)
    (same,) = IDENTITY([image], np.random.default_rng(seed))
    np.testing.assert_array_equal(same, image)


def test_no_augmentation_draws_nothing():
    rng, images = np.random.default_rng(0), (noise(8, 8), noise(4, 6))
    assert all(a is b for a, b in zip(Augmentation(mode="none")(images, rng), images, strict=True))
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("mode", ["photometric", "full"])
def test_the_generator_decides(mode):
    images = [noise(30, 40, seed=i) for i in range(3)]
    augment = Augmentation(mode=mode)
    state = torch.random.get_rng_state()
    first, second, other = (augment(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for a, b, c, image in zip(first, second, other, images, strict=True):
        assert a.dtype == np.uint8
        assert a.shape == image.shape
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
        assert (a != image).any()
    assert torch.equal(state, torch.random.get_rng_state()), "nothing is drawn from the global generator"


def test_each_camera_has_a_draw_of_its_own_whatever_the_sizes():
    image, small = noise(30, 40), noise(12, 12)
    augment = Augmentation()
    twice = augment([image, image], np.random.default_rng(0))
    assert (twice[0] != twice[1]).any()
    mixed = augment([image, small, image], np.random.default_rng(0))
    np.testing.assert_array_equal(mixed[0], twice[0])
    assert mixed[1].shape == small.shape
    draws = np.random.default_rng(0).random((3, 9)).astype(np.float32)
    together = augment.batch(torch.from_numpy(np.stack([image] * 3)), torch.from_numpy(draws))
    for i in (0, 2):
        np.testing.assert_array_equal(mixed[i], together[i].numpy())


def test_a_crop_is_the_crop_scaled_back():
    image = noise(40, 60)
    window = torch.tensor([[2.0, 1.0, 57.0, 38.0]])
    found = crop_and_rotate(planes(image), window, torch.zeros(1))
    expected = interpolate(planes(image[1:39, 2:59]), (40, 60), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=0)


def rotated_pixel_by_pixel(image: np.ndarray, angle_deg: float) -> np.ndarray:
    """The slow twin: every pixel looks up where it comes from; outside is black."""
    height, width = image.shape[:2]
    padded = np.pad(image.astype(np.float64), ((height, height), (width, width), (0, 0)))
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    result = np.zeros(image.shape)
    for row, column in np.ndindex(height, width):
        x, y = column - (width - 1) / 2, row - (height - 1) / 2
        u, v = cosine * x - sine * y + (width - 1) / 2, sine * x + cosine * y + (height - 1) / 2
        left, top = int(np.floor(u)), int(np.floor(v))
        for i, j in np.ndindex(2, 2):
            weight = (1 - abs(u - left - i)) * (1 - abs(v - top - j))
            result[row, column] += weight * padded[height + top + j, width + left + i]
    return result


@pytest.mark.parametrize("angle_deg", [5.0, -3.0, 90.0])
def test_rotation_with_black_corners(angle_deg):
    image = noise(14, 20)
    whole = torch.tensor([[0.0, 0.0, 20.0, 14.0]])
    found = crop_and_rotate(planes(image), whole, torch.tensor([angle_deg]))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, rotated_pixel_by_pixel(image, angle_deg), atol=0.02)


def test_cropping_never_shows_black():
    image = np.full((50, 50, 3), 200, np.uint8)
    augment = Augmentation(rotation_deg=0, **NOTHING)
    for seed in range(10):
        np.testing.assert_array_equal(augment([image], np.random.default_rng(seed))[0], image)


@given(seed=st.integers(0, 50), shift=st.floats(-1 / 6, 1 / 6))
@settings(max_examples=30)
def test_hue_is_that_of_colorsys(seed, shift):
    colours = np.concatenate([noise(20, 1, seed=seed), [[[0, 0, 0]], [[77, 77, 77]], [[255, 0, 0]], [[0, 255, 255]]]])
    found = shift_hue(planes(colours.astype(np.uint8)), torch.tensor([shift]))[0, :, :, 0].T.numpy()
    for (red, green, blue), pixel in zip(colours[:, 0] / 255, found, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        expected = np.array(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)) * 255
        np.testing.assert_allclose(pixel, expected, atol=0.02)


def test_blur_is_a_gaussian():
    image = np.zeros((9, 11, 3), np.uint8)
    image[4, 5] = 255
    sigma = torch.tensor([0.7, 1.0])
    found = blur(planes(image).repeat(2, 1, 1, 1), sigma)
    offsets = np.arange(-2, 3)
    for result, width in zip(found.numpy(), sigma.tolist(), strict=True):
        weights = np.exp(-0.5 * (offsets / width) ** 2)
        weights /= weights.sum()
        np.testing.assert_allclose(result[0, 2:7, 3:8], 255 * np.outer(weights, weights), atol=1e-3)
        np.testing.assert_allclose(result.sum(axis=(1, 2)), 255, rtol=1e-5)
    even = torch.full((1, 3, 6, 7), 90.0)
    torch.testing.assert_close(blur(even, torch.tensor([1.0])), even)


@pytest.mark.parametrize(
    ("strength", "statistic", "low", "high"),
    [
        ({"brightness": 0.2}, lambda x: x.mean() / 100, 0.8, 1.2),
        ({"contrast": 0.2}, lambda x: x.std() / 10, 0.8, 1.2),
        ({"saturation": 0.2}, lambda x: (x[..., 0] - x[..., 2]).mean() / 30, 0.8, 1.2),
    ],
)
def test_strengths_are_the_ranges_of_the_recipe(strength, statistic, low, high):
    image = np.empty((20, 20, 3), np.uint8)
    image[:10], image[10:] = (105, 90, 75), (125, 110, 95)
    image[..., :] = image if "contrast" not in strength else np.where(np.arange(20)[:, None, None] < 10, 90, 110)
    image = np.full_like(image, 100) if "brightness" in strength else image
    augment = Augmentation(crop=1, rotation_deg=0, **{**NOTHING, **strength})
    found = [statistic(augment([image], np.random.default_rng(s))[0].astype(float)) for s in range(60)]
    assert low - 0.03 <= min(found) < low + 0.05
    assert high - 0.05 < max(found) <= high + 0.03


def test_a_fifth_is_blurred():
    image = noise(16, 16)
    augment = Augmentation(mode="photometric", **{**NOTHING, "blur_probability": 0.2}, blur_sigma=(0.9, 1.0))
    blurred = sum((augment([image], np.random.default_rng(seed))[0] != image).any() for seed in range(300))
    assert 40 < blurred < 80


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "some"}, "none, photometric, full"), ({"crop": 0}, "crop"), ({"hue": 0.5}, "hue")],
)
def test_impossible_recipes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)
