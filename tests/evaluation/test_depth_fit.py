"""What is measured of a depth codec, against loops; and the picture that shows it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from molmoact2.depth.change import changed_cells
from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale
from molmoact2.depth.scale import resized
from molmoact2.evaluation.depth_fit import (
    CodecQuality,
    Errors,
    HeldOut,
    Judged,
    Share,
    in_front,
    measure_codec,
    reconstructed,
    still_cells,
)
from molmoact2.evaluation.depth_fit_report import draw_fit, make_example

CONFIG = CodecConfig(
    image_size=32,
    channels=(4, 6, 8),
    code_dim=5,
    num_codes=16,
    scale=DepthScale(kind="fixed", low=0.25, high=1.0),
    unit="m",
)
RANDOM = np.random.default_rng(0)


def codec(config: CodecConfig = CONFIG) -> DepthCodec:
    torch.manual_seed(0)
    made = DepthCodec(config).requires_grad_(False)
    noise = RANDOM.integers(0, 256, (4, 32, 32), dtype=np.uint8)
    features = made.network.encoder(made.as_input(noise)).permute(0, 2, 3, 1).flatten(0, 2)
    made.network.codebook.vectors.copy_(features[: config.num_codes])
    return made


def episode(length: int, seed: int) -> HeldOut:
    """A slope; in it a box that moves, and pictures in which only the upper half changes."""
    random = np.random.default_rng(seed)
    depth = np.tile(np.linspace(1.1, 0.4, 32, dtype=np.float32)[:, None], (length, 1, 32))
    images = np.tile(random.integers(1, 256, (1, 32, 32, 3), dtype=np.uint8), (length, 1, 1, 1))
    for frame in range(length):
        depth[frame, 4:10, 3 * frame : 3 * frame + 6] -= 0.3
        images[frame, :16] = random.integers(1, 256, (16, 32, 3), dtype=np.uint8)
    return HeldOut(depth=depth, images=images)


EPISODES = [episode(5, 1), episode(1, 2), episode(4, 3)]


def test_flicker_against_loops():
    made = codec()
    quality = measure_codec(made, EPISODES)
    unchanged, still, changes = [], [], []
    for one in EPISODES:
        codes = made.encode(one.depth)
        for frame in range(1, len(codes)):
            moved_cells = changed_cells(one.images[frame - 1], one.images[frame], side=4)
            for cell in range(16):
                row, column = divmod(cell, 4)
                place = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                moved = np.abs(one.depth[frame][place] - one.depth[frame - 1][place]).max()
                is_other = codes[frame, cell] != codes[frame - 1, cell]
                changes.append(is_other)
                unchanged += [is_other] * (not moved_cells[cell])
                still += [is_other] * bool(moved <= 0.001)
    assert 0 < sum(changes) < len(changes)
    assert (quality.changes.hits, quality.changes.total) == (sum(changes), len(changes))
    assert 0 < len(unchanged) < len(changes)
    assert (quality.unchanged_flicker.hits, quality.unchanged_flicker.total) == (sum(unchanged), len(unchanged))
    assert 0 < len(still) < len(changes)
    assert (quality.still_flicker.hits, quality.still_flicker.total) == (sum(still), len(still))
    assert quality.num_frames == 10


def test_errors_against_loops():
    made = codec()
    quality = measure_codec(made, EPISODES)
    every, moving = [], []
    for one in EPISODES:
        said = reconstructed(made, one.depth, made.encode(one.depth))
        farthest = one.depth.max(axis=0)
        for place, true in np.ndenumerate(one.depth):
            if 0.25 <= true <= 1.0:
                every.append(abs(said[place] - true))
                moving += [every[-1]] * bool(true < farthest[place[1:]] - np.float32(0.01))
    assert 0 < len(moving) < len(every)
    assert quality.errors.num_pixels == len(every)
    assert quality.errors.mean == pytest.approx(np.mean(every), rel=1e-5)
    assert quality.moving_errors.num_pixels == len(moving)
    assert quality.moving_errors.mean == pytest.approx(np.mean(moving), rel=1e-5)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    made = codec()
    whole = measure_codec(made, EPISODES).as_json()
    monkeypatch.setattr("molmoact2.evaluation.depth_fit.BATCH", 2)
    assert measure_codec(made, EPISODES).as_json() == pytest.approx(whole, rel=1e-6)


def test_judged_in_another_unit():
    """A codec of inverse depth is judged in metres: what counts as still and as moving does not depend on the codec."""
    made = codec(replace(CONFIG, scale=DepthScale(kind="fixed", low=1.0, high=4.0), unit="inverse"))

    def invert(depth: np.ndarray) -> np.ndarray:
        return 1 / np.maximum(depth, 0.1)

    quality = measure_codec(made, EPISODES, judged=Judged(unit="m", within=(0.25, 1.0), seen=invert, meant=invert))
    plain = measure_codec(codec(), EPISODES)
    assert quality.still_flicker.total == plain.still_flicker.total
    assert quality.moving_errors.num_pixels == plain.moving_errors.num_pixels
    said = np.concatenate(
        [invert(reconstructed(made, invert(e.depth), made.encode(invert(e.depth)))) for e in EPISODES]
    )
    true = np.concatenate([e.depth for e in EPISODES])
    assert quality.errors.mean == pytest.approx(np.abs(said - true)[true <= 1].mean(), rel=1e-4)


def test_without_images_nothing_is_said_of_them():
    quality = measure_codec(codec(), [replace(one, images=None) for one in EPISODES])
    assert quality.unchanged_flicker.total == 0
    assert np.isnan(quality.unchanged_flicker.value)
    assert quality.still_flicker.total > 0


def test_a_still_scene_does_not_flicker():
    still = HeldOut(
        depth=np.repeat(EPISODES[0].depth[:1], 6, axis=0), images=np.repeat(EPISODES[0].images[:1], 6, axis=0)
    )
    quality = measure_codec(codec(), [still])
    assert (quality.changes.value, quality.still_flicker.total, quality.unchanged_flicker.total) == (0, 80, 80)


def test_one_far_pixel_makes_a_scale_per_frame_flicker():
    """Why a fixed scale is the default."""
    depth = np.repeat(EPISODES[0].depth[:1], 2, axis=0)
    depth[1, 0, 0] = 5
    changes = {
        kind: measure_codec(codec(replace(CONFIG, scale=scale)), [HeldOut(depth=depth)]).still_flicker.value
        for kind, scale in (("frame", DepthScale(kind="frame")), ("fixed", CONFIG.scale))
    }
    assert changes["fixed"] < changes["frame"]


def test_still_cells_of_one_frame():
    assert still_cells(codec(), EPISODES[1].depth, 0.001).shape == (0, 16)


@pytest.mark.parametrize("unit", ["m", "inverse"])
def test_what_is_in_front(unit: str):
    depth = np.float32([[[1.0, 2.0]], [[1.0, 1.5]], [[1.0, 2.0]]])
    nearer = in_front({"m": depth, "inverse": 1 / depth}[unit], unit)
    np.testing.assert_array_equal(nearer[:, 0], [[False, False], [False, True], [False, False]])


def test_shares_and_errors_of_nothing():
    assert np.isnan(Share().value)
    assert np.isnan(Errors().mean)
    assert np.isnan(Errors().median)


def test_median_of_few_pixels():
    errors = Errors()
    errors.add(np.full((2, 16, 16), 3, np.float32), np.ones((2, 16, 16), bool))
    assert (errors.mean, errors.median) == (3, 3)
    assert errors.samples[0].size == 2 * 2 * 2


def test_numbers_by_name():
    quality = measure_codec(codec(), EPISODES)
    numbers = quality.as_json()
    assert isinstance(quality, CodecQuality)
    assert numbers["num_frames"] == 10
    assert numbers["codes_used"] == len(np.unique(np.concatenate(quality.codes)))
    assert numbers["bits_per_cell"] == pytest.approx(np.log2(numbers["perplexity"]))


def test_an_example_to_look_at():
    made = codec()
    example = make_example(made, EPISODES[0].depth, [0, 3])
    np.testing.assert_array_equal(example.depth, resized(EPISODES[0].depth[[0, 3]], 32))
    outside = (example.depth > 1) | (example.depth < 0.25)
    assert outside.any()
    assert not example.errors[outside].any()
    np.testing.assert_allclose(example.errors[~outside], np.abs(example.decoded - example.depth)[~outside])
    assert example.limits == (0.25, 1.0)


@pytest.mark.parametrize("unit", ["m", "inverse"])
def test_the_picture(tmp_path: Path, unit: str):
    made = codec(replace(CONFIG, unit=unit))
    quality = measure_codec(made, EPISODES)
    log = np.float32(RANDOM.random((30, 4)))
    draw_fit(tmp_path / "a.png", made, make_example(made, EPISODES[0].depth, [0, 2, 4]), quality, log)
    draw_fit(tmp_path / "b.png", made, make_example(made, EPISODES[1].depth, [0]), quality, log[:1])
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 300
            assert np.asarray(image.convert("L")).std() > 10
