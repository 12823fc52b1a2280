"""LeRobot v2.1 is read like v3.0: the same rows, images, tasks and statistics, and damage is refused by file name."""

import json
from pathlib import Path

import numpy as np
import pytest
from old_datasets import CHUNK, change_info, write_old

from molmoact2.data import DatasetWriter, LeRobotDataset, open_dataset
from molmoact2.data.metadata import dimension_names
from molmoact2.data.statistics import column_statistics, image_statistics, pixel_histogram

G1 = Path(__file__).parents[3] / "shared" / "data" / "g1_bottle"
LENGTHS = (4, 5, 6, 7, 8)
FRONT = "observation.images.front"


@pytest.fixture
def old_root(tmp_path, schema, make_episode):
    return write_old(tmp_path / "old", schema, [make_episode(n, length) for n, length in enumerate(LENGTHS)])


def read_everything(root: Path) -> LeRobotDataset:
    dataset = open_dataset(root)
    for number in range(len(dataset.episodes)):
        dataset.episode(number)
    assert dataset.stats
    return dataset


def test_both_versions_read_the_same(old_root, recorded_once):
    old, new = LeRobotDataset(old_root), LeRobotDataset(recorded_once)
    assert (old.version, new.version) == ("v2.1", "v3.0")
    assert (old.cameras, old.fps, old.tasks, len(old)) == (new.cameras, new.fps, new.tasks, len(new))
    assert old.column_names == new.column_names
    for name in new.column_names:
        assert old.column(name).dtype == new.column(name).dtype
        np.testing.assert_array_equal(old.column(name), new.column(name))
    for number in range(len(LENGTHS)):
        for camera in new.cameras:
            np.testing.assert_array_equal(old.episode_images(number, camera), new.episode_images(number, camera))
    assert [record.data_shard.chunk_index for record in old.episodes] == [n // CHUNK for n in range(5)]


def test_statistics_of_columns_are_exact_and_those_of_cameras_pooled(old_root, make_episode):
    stats = LeRobotDataset(old_root).stats
    episodes = [make_episode(number, length) for number, length in enumerate(LENGTHS)]
    actions = np.concatenate([episode.action for episode in episodes])
    for name, value in column_statistics(actions).items():
        np.testing.assert_array_equal(stats["action"][name], value)
    pixels = np.concatenate([episode.images["front"] for episode in episodes])
    expected = image_statistics(pixel_histogram(pixels), len(pixels))
    assert stats[FRONT].keys() == {"min", "max", "mean", "std", "count"}
    for name, value in stats[FRONT].items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-9)


def test_cameras_without_stored_statistics_have_none(old_root):
    (old_root / "meta/episodes_stats.jsonl").unlink()
    stats = LeRobotDataset(old_root).stats
    assert FRONT not in stats
    assert stats["action"]["q99"].shape == (3,)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ()),
        (["x", "y"], ("x", "y")),
        ([["x", "y"]], ("x", "y")),
        ({"motors": ["x", "y"]}, ("x", "y")),
        ({"axes": {"y": 1, "x": 0}}, ("x", "y")),
        ({"arm": ["x"], "hand": ["y"]}, ("x", "y")),
        (7, ()),
    ],
)
def test_names_are_found_wherever_they_are(names, expected):
    assert dimension_names({"names": names}) == expected


def test_missing_videos_are_listed_and_refused_when_asked_for(old_root):
    lost = old_root / "videos/chunk-001" / FRONT / "episode_000003.mp4"
    lost.unlink()
    dataset = open_dataset(old_root)
    assert dataset.missing_videos == {lost: (3,)}
    assert dataset.episodes_with_video == (0, 1, 2, 4)
    assert len(dataset.actions) == sum(LENGTHS)
    dataset.episode(4)
    dataset.episode_images(3, "wrist")
    with pytest.raises(ValueError, match=r"front/episode_000003.mp4: the video of episode 3 is missing"):
        dataset.frame(dataset.episodes[3].from_index)


def test_a_whole_dataset_misses_nothing(old_root):
    dataset = open_dataset(old_root)
    assert (dataset.missing_videos, dataset.episodes_with_video) == ({}, (0, 1, 2, 3, 4))


def test_a_writer_does_not_continue_it(old_root):
    with pytest.raises(ValueError, match="not recorded by this writer"):
        DatasetWriter.resume(old_root)


def change_lines(path: Path, number: int, **fields) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number] |= fields
    path.write_text("\n".join(json.dumps(row) for row in rows))


@pytest.mark.parametrize(
    ("name", "number", "fields", "message"),
    [
        ("episodes", 1, {"length": 6}, r"episodes.jsonl.*have 31|its rows are not those"),
        ("episodes", 1, {"length": "5"}, r"episodes.jsonl: line 2 is no object with"),
        ("episodes", 1, {"length": -5}, "has the times"),
        ("episodes", 1, {"episode_index": 0}, r"episodes.jsonl: meta/info.json promises 5 episodes"),
        ("episodes", 1, {"tasks": [1]}, "not texts"),
        ("tasks", 1, {"task_index": 0}, r"tasks.jsonl: two rows"),
        ("tasks", 1, {"task_index": 7}, r"tasks.jsonl: it has no instruction for the task indices \[1\]"),
        ("tasks", 1, {"task": None}, r"tasks.jsonl: line 2"),
        ("episodes_stats", 0, {"stats": {}}, None),
        ("episodes_stats", 0, {"stats": {FRONT: {}, "observation.images.wrist": {}}}, "are not numbers: KeyError"),
        ("episodes_stats", 0, {"stats": {FRONT: 3, "observation.images.wrist": 3}}, "are not numbers"),
    ],
)
def test_wrong_lines(old_root, name, number, fields, message):
    change_lines(old_root / f"meta/{name}.jsonl", number, **fields)
    if message is None:
        assert FRONT not in read_everything(old_root).stats
    else:
        with pytest.raises(ValueError, match=message):
            read_everything(old_root)


@pytest.mark.parametrize("name", ["meta/episodes.jsonl", "meta/tasks.jsonl", "data/chunk-000/episode_000001.parquet"])
@pytest.mark.parametrize("kept", [None, 0.5])
def test_missing_and_truncated_files(old_root, name, kept):
    content = (old_root / name).read_bytes()
    (old_root / name).unlink()
    if kept is not None:
        (old_root / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=Path(name).name):
        read_everything(old_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(chunks_size=0), "chunks_size is 0"),
        (lambda info: info.update(total_frames=29), "promises 29 frames, the episodes of meta/episodes.jsonl have 30"),
        (lambda info: info.update(total_episodes=6), "promises 6 episodes"),
        (lambda info: info.update(data_path="data/{file}.parquet"), "data_path is"),
        (lambda info: info["features"].pop("action"), "Unknown column 'action'"),
    ],
)
def test_wrong_info(old_root, change, message):
    change_info(old_root, change)
    with pytest.raises(ValueError, match=message):
        read_everything(old_root)


@pytest.mark.skipif(not G1.is_dir(), reason=f"the Unitree G1 demonstrations are not at {G1}")
def test_real_demonstrations_of_which_most_videos_are_missing():
    dataset = open_dataset(G1)
    assert (dataset.version, len(dataset.episodes), len(dataset)) == ("v2.1", 100, 35965)
    assert dataset.episodes_with_video == (1, 2, 29, 30)
    assert dataset.states.shape == dataset.actions.shape == (35965, 26)
    assert dimension_names(dataset.features["action"])[3] == "kLeftElbow"
    assert dataset.tasks == {0: "Pick up the yellow bottle on the table."}
    first, last = (dataset.frame(index) for index in (479, 479 + 392))
    assert first.images["cam_high"].shape == (480, 640, 3)
    assert (first.episode_index, last.frame_index) == (1, 392)
    assert np.abs(first.images["cam_high"].astype(int) - last.images["cam_high"]).mean() > 1
    with pytest.raises(ValueError, match=r"episode_000000.mp4: the video of episode 0 is missing"):
        dataset.frame(0)
