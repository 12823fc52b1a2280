"""How far decoded depth is from the truth: in metres, on the codec's own scale."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_codec import small_codec

from molmoact2.depth.codec import DepthScale
from molmoact2.evaluation import depth_truth
from molmoact2.evaluation.depth_truth import EpisodeTruth, mean_error_mm, open_truth

DEPTH = np.random.default_rng(0).uniform(0.1, 1.4, (3, 24, 32)).astype(np.float32)
SCALES = (DepthScale(), DepthScale(kind="episode"), DepthScale(kind="fixed", low=0.2, high=1.2))


def test_errors_are_in_millimetres():
    truth = np.array([[1.0, 0.5]], np.float32)
    assert mean_error_mm(truth + np.float32(0.01), truth) == pytest.approx(10, rel=1e-4)
    assert mean_error_mm(truth - np.array([[0.0, 0.03]], np.float32), truth) == pytest.approx(15, rel=1e-4)


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_the_codes_of_the_truth_itself_are_the_best_it_can_say(scale):
    truth = EpisodeTruth(codec=small_codec(scale), depth=DEPTH)
    for frame in range(3):
        own = truth.of(frame, truth.codes[frame])
        assert np.array_equal(own.estimate, own.best)
        assert own.error_mm == own.best_error_mm
        assert own.estimate.shape == own.truth.shape == own.picture.shape[:2] == (24, 32)


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_an_estimate_is_what_its_codes_decode_to(scale):
    codec = small_codec(scale)
    square = np.random.default_rng(1).uniform(0.1, 1.4, (2, 16, 16)).astype(np.float32)
    truth, codes = EpisodeTruth(codec=codec, depth=square), np.arange(16)
    expected = codec.to_depth(codec.decode(codes[None]), scale.limits(square)[[1]])[0]
    assert np.array_equal(truth.of(1, codes).estimate, expected)


def test_beyond_the_scale_the_truth_is_its_end():
    codec = small_codec()
    found = EpisodeTruth(codec=codec, depth=DEPTH).of(0, np.zeros(16, np.int64))
    assert np.array_equal(found.truth, np.clip(DEPTH[0], np.float32(0.2), np.float32(1.2)))
    beyond = EpisodeTruth(codec=codec, depth=np.maximum(DEPTH, 1.2) * 3).of(0, np.zeros(16, np.int64))
    assert np.array_equal(beyond.picture, np.broadcast_to(codec.coloured(np.ones(1, np.float32)), (24, 32, 3)))


def test_relative_depth_has_no_error_in_millimetres():
    with pytest.raises(ValueError, match=r"inverse depth .* millimetres has no meaning"):
        EpisodeTruth(codec=small_codec(unit="inverse"), depth=DEPTH)


class Recording:
    """Stands for a dataset of one episode of three frames."""

    episodes = (SimpleNamespace(episode_index=0, length=3),)

    def image_size(self, _camera):
        return 24, 32


@pytest.mark.parametrize(
    ("unit", "depth", "episode", "message"),
    [
        ("m", DEPTH, 1, "no episode 1; the dataset has the episodes 0 to 0"),
        ("inverse", DEPTH, 0, "knows it only relatively"),
        ("m", DEPTH[:2], 0, "has 2 frames, the episode has 3"),
        ("m", DEPTH * np.nan, 0, "NaN"),
    ],
)
def test_truth_that_does_not_fit_is_refused(monkeypatch, unit, depth, episode, message):
    source = SimpleNamespace(episode=lambda *_: depth)
    choice = SimpleNamespace(name="given", unit=unit, open=lambda _dataset: source)
    monkeypatch.setattr(depth_truth, "choose_source", lambda *_: choice)
    with pytest.raises(ValueError, match=message):
        open_truth("given", Recording(), episode, "front", small_codec())


def test_truth_comes_from_its_source(monkeypatch):
    choice = SimpleNamespace(name="given", unit="m", open=lambda _dataset: SimpleNamespace(episode=lambda *_: DEPTH))
    monkeypatch.setattr(depth_truth, "choose_source", lambda *_: choice)
    assert np.array_equal(open_truth("given", Recording(), 0, "front", small_codec()).depth, DEPTH)
