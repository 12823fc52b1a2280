"""torchcodec, where it is installed, gives the frames that PyAV gives and refuses what PyAV refuses."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from molmoact2.data import decoders
from molmoact2.data.decoders import TorchcodecFile, open_video
from molmoact2.data.video import VideoEncoding, VideoFile, encode_video

has_torchcodec = importlib.util.find_spec("torchcodec") is not None
needs_torchcodec = pytest.mark.skipif(not has_torchcodec, reason="torchcodec is not installed")


@pytest.fixture
def clip(tmp_path) -> Path:
    rows, columns = np.mgrid[:32, :48]
    images = np.stack([rows * 3 + columns + 4 * index for index in range(20)])[..., None].repeat(3, -1)
    encode_video(tmp_path / "clip.mp4", images.astype(np.uint8), fps=10, encoding=VideoEncoding())
    return tmp_path / "clip.mp4"


@needs_torchcodec
def test_the_same_frames_in_any_order(clip):
    ours, other = VideoFile(clip), TorchcodecFile(clip)
    for index in [*range(20), *np.random.default_rng(0).permutation(20)]:
        np.testing.assert_array_equal(other.image_at(index / 10), ours.image_at(index / 10))
    other.close()


@needs_torchcodec
@pytest.mark.parametrize("time_s", [0.05, 1.95, 2.0, 9.0])
def test_the_same_refusals(clip, time_s):
    for video in (VideoFile(clip), TorchcodecFile(clip)):
        with pytest.raises(ValueError, match=rf"clip.mp4: no frame at {time_s:.6f} s"):
            video.image_at(time_s)


@needs_torchcodec
def test_files_that_are_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for name in ("a.mp4", "missing.mp4"):
        with pytest.raises(ValueError, match=rf"{name}: it is missing or cut off"):
            TorchcodecFile(tmp_path / name)


def test_without_torchcodec_pyav_decodes(clip, monkeypatch):
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda _name: None)
    assert isinstance(open_video(clip), VideoFile)


def test_a_torchcodec_that_cannot_be_loaded_is_said(clip, monkeypatch):
    monkeypatch.setattr(decoders.importlib.util, "find_spec", lambda _name: "there")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match=r"torchcodec is installed and cannot be loaded: .*PyAV takes its place"):
        open_video(clip)
