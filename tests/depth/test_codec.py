"""The depth codec: sizes, codes, maps and pictures."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale
from molmoact2.depth.codec_config import SIZES
from molmoact2.depth.codec_network import Codebook
from molmoact2.depth.scale import levels_of

FIXED = DepthScale(kind="fixed", low=0.5, high=2.0)
SMALL = CodecConfig(image_size=32, channels=(4, 6, 8), code_dim=5, num_codes=16, scale=FIXED, unit="m")
"""4 x 4 cells of 8 x 8 pixels."""
DEPTH = np.random.default_rng(1).uniform(0.3, 2.2, (7, 24, 40)).astype(np.float32)


def codec(config: CodecConfig = SMALL, seed: int = 0) -> DepthCodec:
    """A codec whose codebook lies among what its encoder gives, so that many codes are used."""
    torch.manual_seed(seed)
    made = DepthCodec(config)
    noise = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (8, 32, 32), dtype=np.uint8))
    features = made.network.encoder(made.as_input(noise.numpy())).detach().permute(0, 2, 3, 1).flatten(0, 2)
    made.network.codebook.vectors.copy_(features[torch.randperm(len(features))[: config.num_codes]])
    return made.requires_grad_(False)


def num_parameters(channels: tuple[int, ...], code_dim: int) -> int:
    """In closed form, encoder and decoder (training.md G)."""
    wide = channels[-1]
    block = 2 * (9 * wide * wide + wide) + (wide * wide + wide)
    down = sum(16 * a * b + b for a, b in pairwise((1, *channels)))
    widths = (wide, *channels[::-1])
    up = sum(16 * a * b + b for a, b in pairwise(widths))
    encoder = down + 2 * block + wide * code_dim + code_dim
    decoder = code_dim * wide + wide + 2 * block + up + channels[0] + 1
    return encoder + decoder


@pytest.mark.parametrize("config", [CodecConfig(), SMALL], ids=["reference", "small"])
def test_number_of_parameters(config: CodecConfig):
    network = DepthCodec(config).network
    assert sum(p.numel() for p in network.parameters()) == num_parameters(config.channels, config.code_dim)
    assert network.codebook.vectors.shape == (config.num_codes, config.code_dim)


def test_sizes_by_name():
    for name, millions in (("nano", 0.6), ("reference", 7.7)):
        assert num_parameters(*SIZES[name]) / 1e6 == pytest.approx(millions, abs=0.05)
    assert SIZES["reference"] == (CodecConfig().channels, CodecConfig().code_dim)


def test_sizes_of_the_reference():
    config = CodecConfig()
    assert (config.side, config.num_cells, config.pixels_per_cell, config.near_is) == (10, 100, 32, "high")
    made = DepthCodec(config)
    codes = made.encode(DEPTH[:2])
    assert codes.shape == (2, 100)
    assert codes.dtype == np.int64
    maps = made.decode(codes)
    assert maps.shape == (2, 320, 320)
    assert maps.dtype == np.float32


def test_layers_of_the_reference():
    layers = [tuple(p.shape) for p in DepthCodec(CodecConfig()).network.encoder.parameters()]
    assert layers[0] == (16, 1, 4, 4)
    assert layers[-2] == (512, 256, 1, 1)
    layers = [tuple(p.shape) for p in DepthCodec(CodecConfig()).network.decoder.parameters()]
    assert layers[0] == (256, 512, 1, 1)
    assert layers[14] == (256, 256, 4, 4)
    assert layers[-2] == (1, 16, 1, 1)


def test_nearest_by_brute_force():
    generator = torch.Generator().manual_seed(3)
    book = Codebook(12, 5)
    book.vectors.copy_(torch.randn(12, 5, generator=generator))
    features = torch.randn(40, 5, generator=generator)
    for feature, code in zip(features, book.nearest(features), strict=True):
        distances = [float(((feature - vector) ** 2).sum()) for vector in book.vectors]
        assert distances[int(code)] == pytest.approx(min(distances), rel=1e-5)


def test_the_first_of_equal_vectors_is_nearest():
    book = Codebook(4, 2)
    book.vectors.copy_(torch.tensor([[5.0, 5], [1, 0], [1, 0], [9, 9]]))
    assert book.nearest(torch.tensor([[1.0, 0.1]])).tolist() == [1]


def test_what_the_network_sees():
    seen = codec().as_input(np.full((1, 8, 8), 255, np.uint8) * np.uint8([[[1], [0], [1], [0], [0], [0], [0], [0]]]))
    assert seen.shape == (1, 1, 32, 32)
    assert set(seen.unique().tolist()) == {-1.0, 1.0}
    assert (seen[0, 0, :4] == 1).all()
    assert (seen[0, 0, 4:8] == -1).all()


def test_maps_together_and_one_by_one(monkeypatch: pytest.MonkeyPatch):
    made = codec()
    together = made.encode(DEPTH)
    assert len(np.unique(together)) > 4
    np.testing.assert_array_equal(together, np.concatenate([made.encode(one[None]) for one in DEPTH]))
    maps = made.decode(together)
    monkeypatch.setattr("molmoact2.depth.codec.BATCH", 3)
    np.testing.assert_array_equal(made.encode(DEPTH), together)
    np.testing.assert_allclose(made.decode(together), maps, atol=1e-6)


def test_an_episode_is_scaled_as_a_whole():
    made = codec(replace(SMALL, scale=DepthScale(kind="episode")))
    ramp = np.linspace(1, 2, 24 * 40, dtype=np.float32).reshape(1, 24, 40)
    alone, beside = made.encode(ramp), made.encode(np.concatenate([ramp, 10 * ramp]))
    assert (alone[0] != beside[0]).any()
    frames = codec(replace(SMALL, scale=DepthScale(kind="frame")))
    np.testing.assert_array_equal(frames.encode(np.concatenate([ramp, 10 * ramp]))[0], frames.encode(ramp)[0])


def test_a_fixed_scale_does_not_care_for_what_is_beyond():
    made = codec()
    far = np.where(DEPTH > 2, 50, DEPTH).astype(np.float32)
    np.testing.assert_array_equal(made.encode(far), made.encode(DEPTH))


def test_cells_are_row_by_row():
    made = codec()
    levels = levels_of(DEPTH, FIXED.limits(DEPTH))
    features, codes = made.network.encoder(made.as_input(levels)), made.encode(DEPTH)
    for frame in range(2):
        for row in range(4):
            for column in range(4):
                code = made.network.codebook.nearest(features[frame, :, row, column][None])
                assert codes[frame, row * 4 + column] == int(code)
    side_by_side = made.network.codebook(torch.from_numpy(codes)).view(7, 4, 4, 5).permute(0, 3, 1, 2)
    maps = made.network.decoder(side_by_side)[:, 0] * 0.5 + 0.5
    np.testing.assert_allclose(made.decode(codes), maps.clamp(0, 1).numpy(), atol=1e-6)


def test_decoded_maps_are_between_zero_and_one():
    made = codec()
    made.network.decoder[-1].bias.fill_(0.9)
    assert made.decode(made.encode(DEPTH)).max() <= 1
    made.network.decoder[-1].bias.fill_(-9)
    assert made.decode(made.encode(DEPTH)).min() == 0


def test_depth_of_the_ends():
    limits = np.float32([[0.5, 2.0], [1.0, 3.0]])
    values = np.stack([np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)])
    back = codec().to_depth(values, limits)
    np.testing.assert_allclose(back[0], 0.5 + 1.5 * 0.5 / 255, rtol=1e-6)
    np.testing.assert_allclose(back[1], 3.0)


@pytest.mark.parametrize(("unit", "bright"), [("m", 0), ("inverse", -1)])
def test_near_is_bright(unit: str, bright: int):
    made = codec(replace(SMALL, unit=unit))
    light = made.coloured(np.linspace(0, 1, 9, dtype=np.float32)).astype(int).sum(axis=1)
    assert light[bright] == light.max()
    assert (np.diff(light) != 0).all()
    assert (np.sign(np.diff(light)) == np.sign(np.diff(light))[0]).all()


def test_a_picture_of_codes():
    made = codec()
    codes = made.encode(DEPTH)
    picture = made.picture(codes[2])
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, made.coloured(made.decode(codes)[2]))


@pytest.mark.parametrize(
    ("codes", "complaint"),
    [
        (np.full((1, 16), 16), "must be from 0 to 15, got .16.* in frame 0"),
        (np.stack([np.zeros(16, int), np.full(16, -1)]), "in frame 1"),
        (np.zeros((1, 15), int), r"integers \[frames, 16\], got \(1, 15\)"),
        (np.zeros(16, int), r"got \(16,\)"),
        (np.zeros((1, 16)), "got .* float64"),
        (np.zeros((0, 16), int), r"got \(0, 16\)"),
    ],
)
def test_codes_that_are_none(codes: np.ndarray, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        codec().decode(codes)


def test_bad_depth_is_refused_with_its_frame():
    depth = DEPTH.copy()
    depth[4, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Frame 4 "):
        codec().encode(depth)
    with pytest.raises(ValueError, match=r"\[frames, height, width\]"):
        codec().encode(DEPTH[0])


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"image_size": 100}, "multiple of 2\\^3 = 8"),
        ({"channels": ()}, "positive integers"),
        ({"channels": (4, 0, 8)}, "positive integers"),
        ({"num_codes": -1}, "positive integers"),
    ],
)
def test_configs_that_cannot_be(fields: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        replace(SMALL, **fields)
