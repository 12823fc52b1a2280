"""The decoded images are those of the dataset, made once, complete or absent."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest

from molmoact2.data import DatasetWriter, LeRobotDataset, decode_frames
from molmoact2.data.frame_cache import fingerprint
from molmoact2.processing.images import resize


def test_rows_are_the_frames(dataset_root, tmp_path):
    dataset = LeRobotDataset(dataset_root)
    frames = decode_frames(dataset, tmp_path / "cache", show_progress=False)
    assert {camera: images.shape for camera, images in frames.items()} == {
        "front": (30, 32, 48, 3),
        "wrist": (30, 32, 48, 3),
    }
    for index in range(0, 30, 7):
        for camera, image in dataset.frame(index).images.items():
            np.testing.assert_array_equal(frames[camera][index], image)
    assert isinstance(frames["front"], np.memmap)
    assert not frames["front"].flags.writeable


def test_the_second_call_decodes_nothing(dataset_root, tmp_path, monkeypatch):
    dataset = LeRobotDataset(dataset_root)
    first = decode_frames(dataset, tmp_path, show_progress=False)
    monkeypatch.setattr(LeRobotDataset, "stream", lambda *_: pytest.fail("decoded again"))
    second = decode_frames(dataset, tmp_path, show_progress=False)
    np.testing.assert_array_equal(first["front"], second["front"])


def test_a_changed_dataset_is_decoded_anew(dataset_root, tmp_path, make_episode):
    before = fingerprint(dataset_root)
    decode_frames(LeRobotDataset(dataset_root), tmp_path / "cache", show_progress=False)
    with DatasetWriter.resume(dataset_root) as writer:
        writer.add_episode(make_episode(5))
    assert fingerprint(dataset_root) != before
    frames = decode_frames(LeRobotDataset(dataset_root), tmp_path / "cache", show_progress=False)
    assert len(frames["front"]) == 36


def test_a_failure_leaves_no_cache(dataset_root, tmp_path):
    video = next(dataset_root.rglob("*wrist/chunk-000/file-000.mp4"))
    content = video.read_bytes()
    dataset = LeRobotDataset(dataset_root)
    video.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"wrist/chunk-000/file-000.mp4"):
        decode_frames(dataset, tmp_path / "cache", show_progress=False)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_empty_dataset_has_nothing_to_decode(tmp_path, schema):
    DatasetWriter(tmp_path / "dataset", schema)
    with pytest.raises(ValueError, match="no finished episodes"):
        decode_frames(LeRobotDataset(tmp_path / "dataset"), tmp_path / "cache")


def test_scaled_images_are_those_of_the_processor(dataset_root, tmp_path):
    dataset = LeRobotDataset(dataset_root)
    plain = decode_frames(dataset, tmp_path, show_progress=False)
    scaled = decode_frames(dataset, tmp_path, size=(20, 28), show_progress=False)
    assert scaled["wrist"].shape == (30, 20, 28, 3)
    for index in range(0, 30, 7):
        np.testing.assert_array_equal(scaled["wrist"][index], resize(plain["wrist"][index], (20, 28)))
    assert len(list(tmp_path.glob("frames-*"))) == 2, "each size has a cache of its own"


def test_some_episodes_only(dataset_root, tmp_path):
    dataset = LeRobotDataset(dataset_root)
    plain = decode_frames(dataset, tmp_path, show_progress=False)
    rows = [*range(*dataset_rows(dataset, 1)), *range(*dataset_rows(dataset, 3))]
    some = decode_frames(dataset, tmp_path, episodes=[1, 3], show_progress=False)
    np.testing.assert_array_equal(some["front"], plain["front"][rows])
    others = decode_frames(dataset, tmp_path, episodes=[1, 2], show_progress=False)
    assert len(others["front"]) == 11


def dataset_rows(dataset, episode):
    record = dataset.episodes[episode]
    return record.from_index, record.to_index


@pytest.mark.parametrize(
    ("episodes", "message"),
    [([], "no episodes"), ([2, 1], "ascending"), ([1, 1], "distinct"), ([9], "There is no episode 9")],
)
def test_wrong_episodes_are_refused(dataset_root, tmp_path, episodes, message):
    with pytest.raises(ValueError, match=message):
        decode_frames(LeRobotDataset(dataset_root), tmp_path / "cache", episodes=episodes, show_progress=False)


def test_a_full_disk_is_seen_before_decoding(dataset_root, tmp_path, monkeypatch):
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(ValueError, match=r"take 276.5 kB, but .* has 1.0 kB left"):
        decode_frames(LeRobotDataset(dataset_root), tmp_path / "cache", show_progress=False)


def test_a_killed_process_leaves_no_half_cache(dataset_root, tmp_path):
    script = f"""
import os, signal
from molmoact2.data import LeRobotDataset, decode_frames
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
decode_frames(LeRobotDataset({str(dataset_root)!r}), {str(tmp_path / "cache")!r}, show_progress=False)
"""
    result = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert result.returncode == -signal.SIGKILL
    frames = decode_frames(LeRobotDataset(dataset_root), tmp_path / "cache", show_progress=False)
    np.testing.assert_array_equal(frames["front"][0], LeRobotDataset(dataset_root).frame(0).images["front"])
