"""Depth sources: what is accepted of them, functions as sources, and Depth-Anything."""

import importlib.util
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from molmoact2.depth import anything
from molmoact2.depth.anything import AnythingDepth, input_size, load_anything, require_transformers
from molmoact2.depth.sources import CallableDepth, ExpectedDepth

EXPECTED = ExpectedDepth(source="laser", unit="m", episode_index=7, camera="front", num_frames=3, size=(4, 6))
GOOD = np.linspace(0.1, 2, 72, dtype=np.float32).reshape(3, 4, 6)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)


def with_value(value: float) -> np.ndarray:
    depth = GOOD.copy()
    depth[1, 2, 3] = value
    return depth


def test_good_depth_passes_as_float32():
    assert EXPECTED.check(GOOD) is GOOD
    whole = EXPECTED.check(np.full((3, 4, 6), 2, np.uint16))
    assert whole.dtype == np.float32
    assert (whole == 2).all()
    assert EXPECTED.check(GOOD.astype(np.float64)).dtype == np.float32


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (GOOD[0], "has 2 dimensions, not 3"),
        (GOOD[..., None], "has 4 dimensions, not 3"),
        (GOOD[:2], "has 2 frames, the episode has 3"),
        (GOOD.transpose(0, 2, 1), r"is \[6, 4\] in size, the images of the camera are \[4, 6\]"),
        (GOOD[:, ::2], r"is \[2, 6\] in size"),
        (GOOD.astype(str), "not numbers"),
        (GOOD > 0, "is bool, not numbers"),
        (with_value(np.nan), "NaN or infinity in 1 frames, the first of them frame 1"),
        (with_value(-np.inf), "NaN or infinity in 1 frames, the first of them frame 1"),
        (with_value(-0.5), "negative metres in 1 frames, the first of them frame 1"),
    ],
)
def test_bad_depth_is_refused_with_its_place(depth, words):
    with pytest.raises(ValueError, match=words) as refusal:
        EXPECTED.check(depth)
    assert "Source 'laser': the depth of camera 'front' in episode 7" in str(refusal.value)


def test_inverse_depth_is_relative_and_may_be_negative():
    assert (replace(EXPECTED, unit="inverse").check(with_value(-3.0))[1, 2, 3]) == -3


def test_a_function_is_a_source():
    def function(dataset, record, camera):
        return GOOD * {("data", "record", "front"): 2}[dataset, record, camera]

    source = CallableDepth(function=function, unit="m", name="mine")
    np.testing.assert_array_equal(source.episode("data", "record", "front"), GOOD * 2)
    assert (source.name, source.unit) == ("mine", "m")


@dataclass
class Batch(dict):
    """What a processor returns: a mapping that moves to a device."""

    def to(self, device: str):
        assert device == "cpu"
        return self


class Stub:
    """A processor and network whose depth is the red channel, at half the size; it notes how much it is given."""

    size: ClassVar = {"height": 24}
    ensure_multiple_of = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images, size, keep_aspect_ratio, return_tensors):
        assert (size, keep_aspect_ratio, return_tensors) == ({"height": 24, "width": 32}, False, "pt")
        self.batches.append(len(images))
        batch = Batch()
        batch["pixel_values"] = torch.from_numpy(np.stack(images)[:, ::2, ::2])
        return batch

    def network(self, pixel_values):
        return SimpleNamespace(predicted_depth=pixel_values[..., 0].to(torch.float64))


def test_images_go_in_batches_and_depth_comes_back_in_their_size(monkeypatch):
    monkeypatch.setattr(anything, "BATCH", 2)
    stub = Stub()
    source = AnythingDepth(name="stub", processor=stub, network=stub.network)
    dataset = SimpleNamespace(episode_images=lambda episode, camera: {(3, "front"): IMAGES}[episode, camera])
    depth = source.episode(dataset, SimpleNamespace(episode_index=3), "front")
    assert stub.batches == [2, 2, 1]
    assert depth.shape == (5, 48, 64)
    assert depth.dtype == np.float32
    half = IMAGES[:, ::2, ::2, 0]
    np.testing.assert_array_equal(depth[:, [0, 0, -1, -1], [0, -1, 0, -1]], half[:, [0, 0, -1, -1], [0, -1, 0, -1]])
    row = np.interp(np.linspace(0, 31, 64), np.arange(32), half[2, 0])
    np.testing.assert_allclose(depth[2, 0], row, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((128, 128), (518, 518)),
        ((240, 320), (518, 686)),
        ((480, 640), (518, 686)),
        ((1280, 720), (924, 518)),
        ((180, 320), (518, 924)),
        ((518, 524), (518, 518)),
    ],
)
def test_the_shorter_side_is_what_the_network_was_trained_on(size, expected):
    assert input_size(size, 518, 14) == expected


def test_without_transformers_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"pip install 'molmoact2\[depth\]'"):
        require_transformers()
    with pytest.raises(ValueError, match="needs the package transformers"):
        load_anything()


def test_something_else_is_no_estimator(tmp_path):
    pytest.importorskip("transformers", reason="the extra depth is not installed")
    with pytest.raises(ValueError, match="is no depth estimator that transformers"):
        load_anything(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "DPTImageProcessor"}')
    with pytest.raises(ValueError, match="is no depth estimator"):
        load_anything(str(tmp_path))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A Depth-Anything of 40,000 random weights, as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="the extra depth is not installed")
    folder = tmp_path_factory.mktemp("tiny")
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=70,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "head_hidden_size": 4}
    config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=14, **sizes)
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    shape = {"height": 70, "width": 70}
    processor = {"image_processor_type": "DPTImageProcessor", "size": shape, "resample": 3, "ensure_multiple_of": 14}
    processor |= {"keep_aspect_ratio": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    transformers.DPTImageProcessor(**processor).save_pretrained(folder)
    return folder


def test_a_model_of_transformers(tiny_model, monkeypatch):
    source = load_anything(str(tiny_model))
    assert (source.name, source.unit) == (f"anything:{tiny_model}", "inverse")
    depth = source.estimate(IMAGES)
    assert depth.shape == (5, 48, 64)
    assert np.isfinite(depth).all()
    assert depth.std() > 0
    monkeypatch.setattr(anything, "BATCH", 2)
    np.testing.assert_allclose(load_anything(str(tiny_model)).estimate(IMAGES), depth, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(source.estimate(IMAGES[:0:-1]), source.estimate(IMAGES[:0:-1]))
