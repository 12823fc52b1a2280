"""A stream gives the frames that are found one by one, opening each video once and decoding every frame once."""

import numpy as np
import pytest
from old_datasets import write_old

from molmoact2.data import LeRobotDataset, pictures
from molmoact2.data.video import VideoFile


@pytest.fixture
def counted(monkeypatch) -> dict[str, int]:
    """How often files are opened, sought in, and asked for the next frame."""
    counts = {"opened": 0, "sought": 0, "decoded": 0}
    methods = {"opened": "__init__", "sought": "_seek", "decoded": "_decode_next"}

    def wrap(what: str, method):
        def counting(self, *arguments, **options):
            counts[what] += 1
            return method(self, *arguments, **options)

        return counting

    monkeypatch.setattr(pictures, "open_video", VideoFile)
    for what, name in methods.items():
        monkeypatch.setattr(VideoFile, name, wrap(what, vars(VideoFile)[name]))
    return counts


def assert_same_frame(found, expected) -> None:
    for camera, image in expected.images.items():
        np.testing.assert_array_equal(found.images[camera], image)
    np.testing.assert_array_equal(found.state, expected.state)
    np.testing.assert_array_equal(found.action, expected.action)
    same = ("task", "episode_index", "frame_index", "timestamp_s")
    assert [vars(found)[name] for name in same] == [vars(expected)[name] for name in same]


def test_all_frames_in_order_each_decoded_once(dataset_root, counted):
    dataset = LeRobotDataset(dataset_root)
    streamed = list(dataset.stream())
    assert counted == {"opened": 2, "sought": 2, "decoded": 2 * len(dataset)}
    assert len(streamed) == len(dataset)
    for index, frame in enumerate(streamed):
        assert_same_frame(frame, dataset.frame(index))


def test_a_file_per_episode(tmp_path, schema, make_episode, counted):
    dataset = LeRobotDataset(write_old(tmp_path, schema, [make_episode(number, 4) for number in range(3)]))
    assert [frame.episode_index for frame in dataset.stream()] == [0] * 4 + [1] * 4 + [2] * 4
    assert counted == {"opened": 6, "sought": 6, "decoded": 24}


def test_some_episodes_in_any_order(dataset_root):
    dataset = LeRobotDataset(dataset_root)
    found = [(frame.episode_index, frame.frame_index) for frame in dataset.stream([3, 1])]
    assert found == [(3, index) for index in range(7)] + [(1, index) for index in range(5)]


def test_frames_in_between_do_not_disturb_it(dataset_root, counted):
    dataset = LeRobotDataset(dataset_root)
    for number, frame in enumerate(dataset.stream()):
        before = counted["sought"]
        assert_same_frame(frame, frame)
        if number == 12:
            dataset.frame(29)
            dataset.frame(1)
            assert counted["sought"] > before
    assert counted["opened"] == 4


def test_what_cannot_be_streamed_is_refused_before_the_first_frame(dataset_root):
    dataset = LeRobotDataset(dataset_root)
    with pytest.raises(ValueError, match="There is no episode 9"):
        dataset.stream([0, 9])


def test_missing_videos_are_refused_before_the_first_frame(tmp_path, schema, make_episode):
    root = write_old(tmp_path, schema, [make_episode(number, 4) for number in range(3)])
    (root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4").unlink()
    dataset = LeRobotDataset(root)
    with pytest.raises(ValueError, match=r"1 video files are missing.*episodes \[1\].*episodes_with_video"):
        dataset.stream()
    assert len(list(dataset.stream(dataset.episodes_with_video))) == 8
