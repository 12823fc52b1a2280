"""The decoded images are those of the dataset, made once, complete or absent."""

import numpy as np
import pytest

from molmoact2.data import DatasetWriter, LeRobotDataset, decode_frames
from molmoact2.data.frame_cache import fingerprint


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
    monkeypatch.setattr(LeRobotDataset, "episode_images", lambda *_: pytest.fail("decoded again"))
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
