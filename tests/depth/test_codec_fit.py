"""Fitting a depth codec: the codebook's averages, its revival, and runs that are stopped."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, fingerprint
from molmoact2.depth.codec_network import Codebook
from molmoact2.depth.fit import (
    LOGGED,
    CodebookAverages,
    FitSettings,
    code_usage,
    drawn,
    fit_codec,
    learning_rate_factor,
    spread,
    store_levels,
)
from molmoact2.depth.scale import levels_of

CONFIG = CodecConfig(
    image_size=32, channels=(4, 8), code_dim=6, num_codes=8, scale=DepthScale(kind="fixed", low=0.0, high=1.0), unit="m"
)
SETTINGS = FitSettings(steps=4, batch_size=3, learning_rate=3e-3, warmup_steps=1)


def scenes(count: int = 12, seed: int = 0) -> np.ndarray:
    """Levels of a slope with a box at a random place: uint8 [count, 32, 32]."""
    random = np.random.default_rng(seed)
    maps = np.tile(np.linspace(220, 90, 32)[:, None], (count, 1, 32))
    for one, (row, column) in zip(maps, random.integers(0, 24, (count, 2)), strict=True):
        one[row : row + 8, column : column + 8] -= 60
    return maps.astype(np.uint8)


def averages(vectors: torch.Tensor, **settings: object) -> CodebookAverages:
    book = Codebook(*vectors.shape)
    book.vectors.copy_(vectors)
    return CodebookAverages(book, replace(SETTINGS, **settings))


def test_averages_by_hand():
    ours = averages(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), decay=0.99)
    ours.counts.copy_(torch.tensor([2.0, 3.0]))
    ours.sums.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    ours.update(torch.tensor([[4.0, 2.0], [6.0, 4.0], [1.0, 1.0]]), torch.tensor([0, 0, 1]))
    counts = [0.99 * 2 + 0.01 * 2, 0.99 * 3 + 0.01 * 1]
    sums = [[0.99 * 2 + 0.01 * 10, 0.01 * 6], [0.01 * 1, 0.99 * 3 + 0.01 * 1]]
    total = sum(counts)
    smoothed = [(count + 1e-5) / (total + 2e-5) * total for count in counts]
    np.testing.assert_allclose(ours.counts, counts, rtol=1e-6)
    np.testing.assert_allclose(ours.sums, sums, rtol=1e-6)
    np.testing.assert_allclose(ours.codebook.vectors, np.array(sums) / np.array(smoothed)[:, None], rtol=1e-5)


def test_without_memory_vectors_are_means():
    ours = averages(torch.zeros(3, 4), decay=0.0)
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    codes = torch.arange(30) % 3
    ours.update(features, codes)
    for code in range(3):
        torch.testing.assert_close(
            ours.codebook.vectors[code], features[codes == code].mean(dim=0), rtol=1e-4, atol=1e-5
        )


def test_unused_vectors_are_put_where_they_serve():
    ours = averages(torch.tensor([[0.0, 0.0], [50.0, 50.0], [70.0, 0.0]]), revive_after=2)
    ours.idle.zero_()
    features = torch.tensor([[0.0, 0.1], [0.1, 0.0], [9.0, 9.0], [0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        assert ours.revive(features, generator) == 0
        ours.update(features, torch.zeros(4, dtype=torch.int64))
    assert ours.idle.tolist() == [0, 2, 2]
    before = ours.codebook.vectors[0].clone()
    assert ours.revive(features, generator) == 2
    assert [9.0, 9.0] in ours.codebook.vectors[1:].tolist()
    assert all(vector in features.tolist() for vector in ours.codebook.vectors[1:].tolist())
    torch.testing.assert_close(ours.codebook.vectors[0], before)
    assert ours.idle.tolist() == [0, 0, 0]
    assert ours.counts[1:].tolist() == [1, 1]
    torch.testing.assert_close(ours.sums[1:], ours.codebook.vectors[1:])


def test_a_fresh_codebook_is_placed_among_the_first_features():
    ours = averages(torch.zeros(5, 2))
    features = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    assert ours.revive(features, torch.Generator().manual_seed(0)) == 5
    placed = ours.codebook.vectors.tolist()
    assert all(vector in features.tolist() for vector in placed)
    assert len({tuple(vector) for vector in placed}) == 5


def test_more_vectors_than_features():
    ours = averages(torch.zeros(5, 2))
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ours.revive(features, torch.Generator().manual_seed(0))
    assert sorted(ours.codebook.vectors.tolist()) == [[0, 0], [0, 0], [0, 0], [1, 2], [3, 4]]


@given(seed=st.integers(0, 2**32), count=st.integers(0, 10))
def test_spread_draws_features_that_differ(seed: int, count: int):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(10, 3, generator=generator)
    chosen = spread(features, features[:0], count, generator)
    assert len({tuple(one) for one in chosen.tolist()}) == count


def test_a_fit_learns_and_keeps_its_codes_alive():
    settings = replace(SETTINGS, steps=120, batch_size=8, revive_after=5)
    codec, log = fit_codec(CONFIG, scenes(40), settings=settings)
    error, used = log[:, LOGGED.index("map_error")], log[:, LOGGED.index("codes_used")]
    assert log.shape == (120, 4)
    assert error[-10:].mean() < 0.25 * error[:10].mean()
    assert used[-10:].mean() >= 6
    assert not codec.training
    depth = (scenes(5, seed=9) + np.float32(0.5)) / 255
    back = codec.to_depth(codec.decode(codec.encode(depth)), CONFIG.scale.limits(depth))
    flat = np.abs(depth - depth.mean()).mean()
    assert np.abs(back - depth).mean() < 0.5 * flat


def test_the_error_can_be_absolute():
    squared, absolute = (fit_codec(CONFIG, scenes(), settings=replace(SETTINGS, steps=1, map_error=kind))[1][0, 0]
                         for kind in ("squared", "absolute"))  # fmt: skip
    assert absolute > squared > 0


def test_the_same_seed_gives_the_same_codec():
    one, two, other = (fit_codec(CONFIG, scenes(), settings=replace(SETTINGS, seed=seed))[0] for seed in (3, 3, 4))
    assert fingerprint(one) == fingerprint(two) != fingerprint(other)


def test_global_randomness_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_codec(CONFIG, scenes(), settings=SETTINGS)
    torch.testing.assert_close(torch.rand(3), expected)


class StoppedError(Exception):
    """The user has had enough."""


def stop_at(step: int):
    def on_step(done: int, _line: np.ndarray) -> None:
        if done == step:
            raise StoppedError

    return on_step


@pytest.mark.parametrize("stopped_at", [2, 3])
def test_a_stopped_fit_goes_on_bit_for_bit(tmp_path: Path, stopped_at: int):
    whole, log = fit_codec(CONFIG, scenes(), settings=SETTINGS)
    checkpoint = tmp_path / "fit.safetensors"
    with pytest.raises(StoppedError):
        fit_codec(
            CONFIG, scenes(), settings=SETTINGS, checkpoint=checkpoint, checkpoint_every=2, on_step=stop_at(stopped_at)
        )
    steps = []
    again, again_log = fit_codec(
        CONFIG, scenes(), settings=SETTINGS, checkpoint=checkpoint, on_step=lambda step, _: steps.append(step)
    )
    assert steps == [3, 4]
    assert fingerprint(again) == fingerprint(whole)
    np.testing.assert_array_equal(again_log, log)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"settings": replace(SETTINGS, learning_rate=1e-4)}, "other settings"),
        ({"config": replace(CONFIG, num_codes=9)}, "other config"),
        ({"levels": scenes(seed=1)}, "other data"),
        ({"levels": scenes(count=13)}, "other data"),
    ],
)
def test_a_checkpoint_of_another_run(tmp_path: Path, change: dict, complaint: str):
    checkpoint = tmp_path / "fit.safetensors"
    arguments = {"config": CONFIG, "levels": scenes(), "settings": SETTINGS, "checkpoint": checkpoint}
    fit_codec(**arguments, checkpoint_every=2)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=complaint):
        fit_codec(**arguments | change)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes):
    checkpoint = tmp_path / "fit.safetensors"
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="not a safetensors file"):
        fit_codec(CONFIG, scenes(), settings=SETTINGS, checkpoint=checkpoint)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from molmoact2.depth import codec_files
from molmoact2.depth.fit import fit_codec
from test_codec_fit import CONFIG, SETTINGS, scenes
flush, calls = codec_files.flush, []
def kill_at_the_third(path):
    calls.append(path)
    flush(path) if len(calls) < 3 else os.kill(os.getpid(), signal.SIGKILL)
codec_files.flush = kill_at_the_third
fit_codec(CONFIG, scenes(), settings=SETTINGS, checkpoint=Path({checkpoint!r}), checkpoint_every=2)
"""


def test_a_killed_fit_goes_on_from_the_checkpoint_before(tmp_path: Path):
    checkpoint = tmp_path / "fit.safetensors"
    script = KILLED.format(tests=str(Path(__file__).parent), checkpoint=str(checkpoint))
    result = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == -signal.SIGKILL
    steps = []
    again, _ = fit_codec(
        CONFIG, scenes(), settings=SETTINGS, checkpoint=checkpoint, on_step=lambda step, _: steps.append(step)
    )
    assert steps == [3, 4]
    assert fingerprint(again) == fingerprint(fit_codec(CONFIG, scenes(), settings=SETTINGS)[0])


def test_levels_of_episodes_in_a_file(tmp_path: Path):
    random = np.random.default_rng(2)
    episodes = [random.uniform(0.2, 2, (length, 6, 8)).astype(np.float32) for length in (3, 1, 4)]
    scale = DepthScale(kind="episode")
    stored = store_levels(iter(episodes), scale, tmp_path / "levels")
    assert stored.levels.shape == (8, 6, 8)
    assert isinstance(stored.levels, np.memmap)
    for depth, place in zip(episodes, stored.episodes, strict=True):
        limits = scale.limits(depth)
        np.testing.assert_array_equal(stored.limits[place], limits)
        np.testing.assert_array_equal(stored.levels[place], levels_of(depth, limits))
    codec, _ = fit_codec(replace(CONFIG, scale=scale), stored.levels, settings=replace(SETTINGS, steps=1))
    assert isinstance(codec, DepthCodec)


def test_bad_episodes_are_named(tmp_path: Path):
    good = np.ones((2, 4, 4), np.float32)
    bad = good.copy()
    bad[1, 0, 0] = np.inf
    scale = DepthScale(kind="frame")
    with pytest.raises(ValueError, match="Episode 1: Frame 1 of the depth"):
        store_levels([good, bad], scale, tmp_path / "a")
    with pytest.raises(ValueError, match="all have the same size, got"):
        store_levels([good, np.ones((2, 5, 4), np.float32)], scale, tmp_path / "b")
    with pytest.raises(ValueError, match="no episodes"):
        store_levels([], scale, tmp_path / "c")
    with pytest.raises(ValueError, match="no depth maps"):
        fit_codec(CONFIG, scenes()[:0], settings=SETTINGS)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"revive_after": 0},
        {"learning_rate": 0.0},
        {"decay": 1.0},
        {"warmup_steps": -1},
    ],
    ids=str,
)
def test_settings_that_cannot_be(fields: dict):
    with pytest.raises(ValueError, match="to fit a depth codec"):
        FitSettings(**fields)


def test_the_learning_rate_rises_and_falls():
    settings = FitSettings(steps=100, warmup_steps=9)
    factors = [learning_rate_factor(step, settings) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert np.argmax(factors) in (8, 9)
    assert 0 < factors[-1] < 1e-3
    assert (np.diff(factors[10:]) < 0).all()


def test_steps_draw_maps_of_their_own():
    draws = [tuple(drawn(1000, step, FitSettings())) for step in range(20)]
    assert len(set(draws)) == 20
    assert all(len(one) == 16 and list(one) == sorted(one) and one[-1] < 1000 for one in draws)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_usage_of_codes(codes: list[int]):
    usage = code_usage(np.array(codes), 10)
    assert usage.counts.sum() == len(codes)
    assert usage.num_used == len(set(codes))
    assert 1 - 1e-9 <= usage.perplexity <= usage.num_used + 1e-9
    assert usage.perplexity == pytest.approx(2**usage.bits)


def test_even_use_has_as_many_bits_as_there_are():
    assert code_usage(np.arange(128).repeat(3), 128).bits == pytest.approx(7)
    assert code_usage(np.zeros(9, int), 128).bits == 0
