"""A frame is found by its time, whatever was asked before, and joined files show the same pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data.video import VideoEncoding, VideoFile, decoder_setup, encode_video, join_videos

FPS = 10
ENCODING = VideoEncoding()


def numbered(count: int, first: int = 0, size: int = 32) -> np.ndarray:
    """Grey images, each of its own brightness."""
    levels = 20 + 5 * ((first + np.arange(count)) % 45)
    return np.broadcast_to(levels[:, None, None, None], (count, size, size, 3)).astype(np.uint8)


def decode(path, count: int) -> np.ndarray:
    video = VideoFile(path)
    return np.stack([video.image_at(index / FPS) for index in range(count)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    encode_video(path, numbered(40), fps=FPS, encoding=ENCODING)
    return path


def test_what_is_written_is_read(clip):
    assert np.abs(decode(clip, 40).astype(int) - numbered(40)).max() <= 2


def test_detail_survives(tmp_path):
    rng = np.random.default_rng(0)
    rough = rng.integers(60, 200, (8, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    encode_video(tmp_path / "a.mp4", rough, fps=FPS, encoding=ENCODING)
    error = decode(tmp_path / "a.mp4", 8).astype(float) - rough
    inside = error.reshape(8, 8, 8, 8, 8, 3)[:, :, 2:-2, :, 2:-2]
    assert np.sqrt(np.mean(inside**2)) < 8


@given(order=st.lists(st.integers(0, 39), min_size=1, max_size=12))
def test_any_order_shows_the_same(clip, order):
    video = VideoFile(clip)
    for index in order:
        assert abs(int(video.image_at(index / FPS).mean()) - (20 + 5 * index)) <= 2


def test_reading_in_order_decodes_every_frame_once(clip, monkeypatch):
    video = VideoFile(clip)
    seeks = []
    monkeypatch.setattr(video, "_seek", lambda time_s, seek=video._seek: seeks.append(time_s) or seek(time_s))
    for index in (3, 4, 4, 5, 9, 12):
        video.image_at(index / FPS)
    assert seeks == [0.3]


@pytest.mark.parametrize("time_s", [0.05, 0.1 + 2e-4, -0.1, 4.0, 99.0])
def test_a_time_without_frame_is_refused(clip, time_s):
    with pytest.raises(ValueError, match=rf"clip.mp4: no frame at {time_s:.6f} s"):
        VideoFile(clip).image_at(time_s)


def test_a_file_recovers_after_a_refusal(clip):
    video = VideoFile(clip)
    with pytest.raises(ValueError, match="ends before"):
        video.image_at(7.0)
    assert abs(int(video.image_at(0.2).mean()) - 30) <= 2


def test_joined_files_show_the_same_pictures(tmp_path):
    parts, expected = [], []
    for number, count in enumerate((5, 1, 12)):
        path = tmp_path / f"{number}.mp4"
        encode_video(path, numbered(count, first=10 * number), fps=FPS, encoding=ENCODING)
        parts.append((path, count))
        expected.append(decode(path, count))
    assert len({decoder_setup(path) for path, _ in parts}) == 1
    join_videos(parts[0][0], parts, fps=FPS)
    np.testing.assert_array_equal(decode(parts[0][0], 18), np.concatenate(expected))
    join_videos(tmp_path / "cut.mp4", [(parts[0][0], 7), (parts[2][0], 3)], fps=FPS)
    np.testing.assert_array_equal(
        decode(tmp_path / "cut.mp4", 10), np.concatenate([*expected[:2], expected[2][:1], expected[2][:3]])
    )
    with pytest.raises(ValueError, match="ends before"):
        VideoFile(tmp_path / "cut.mp4").image_at(1.0)


def test_nothing_appears_when_encoding_fails(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        encode_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 4), np.uint8), fps=FPS, encoding=ENCODING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_no_video_is_named(tmp_path, clip, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(clip.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match=r"broken.mp4: it is missing or cut off"):
        VideoFile(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.mp4: it is missing"):
        VideoFile(tmp_path / "gone.mp4")
