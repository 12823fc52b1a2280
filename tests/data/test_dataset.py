"""What is recorded is read back: rows, images, tasks and statistics, whatever files they are in."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, ExtraColumn, LeRobotDataset
from molmoact2.data.files import EPISODES_PATH, FILES_PER_CHUNK, TASKS_PATH, Shard
from molmoact2.data.statistics import column_statistics, image_statistics, pixel_histogram
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP

LENGTHS = (4, 5, 6, 7, 8)


def assert_same_episode(found: Episode, expected: Episode) -> None:
    assert found.task == expected.task
    np.testing.assert_array_equal(found.state, expected.state)
    np.testing.assert_array_equal(found.action, expected.action)
    for name, column in expected.extras.items():
        np.testing.assert_array_equal(found.extras[name], column)
    for camera, images in expected.images.items():
        assert found.images[camera].dtype == np.uint8
        assert np.abs(found.images[camera].astype(int) - images).mean() < 3


def test_episodes_come_back(dataset_root, make_episode):
    dataset = LeRobotDataset(dataset_root)
    assert (len(dataset), dataset.fps, dataset.cameras) == (sum(LENGTHS), 15, ("front", "wrist"))
    assert [record.length for record in dataset.episodes] == list(LENGTHS)
    for number, length in enumerate(LENGTHS):
        assert_same_episode(dataset.episode(number), make_episode(number, length))


def test_frames_are_those_of_their_episode(dataset_root):
    dataset = LeRobotDataset(dataset_root)
    for index in np.random.default_rng(0).permutation(len(dataset)):
        frame = dataset.frame(int(index))
        record = dataset.episodes[frame.episode_index]
        assert record.from_index + frame.frame_index == index
        assert frame.timestamp_s == np.float32(frame.frame_index / 15)
        episode = dataset.episode(frame.episode_index)
        np.testing.assert_array_equal(frame.images["wrist"], episode.images["wrist"][frame.frame_index])
        np.testing.assert_array_equal(frame.state, episode.state[frame.frame_index])
        assert frame.extras["cube_pose"].tolist() == episode.extras["cube_pose"][frame.frame_index].tolist()
        assert frame.task == episode.task
        assert dataset.episode_ends[index] == record.to_index


def test_statistics_are_exact(dataset_root, make_episode):
    stats = LeRobotDataset(dataset_root).stats
    episodes = [make_episode(number, length) for number, length in enumerate(LENGTHS)]
    for name in ("observation.state", "action", "next.reward"):
        expected = column_statistics(np.concatenate([episode.columns()[name] for episode in episodes]))
        for key, value in expected.items():
            np.testing.assert_array_equal(stats[name][key], value)
    histogram = pixel_histogram(np.concatenate([episode.images["front"] for episode in episodes]))
    for key, value in image_statistics(histogram, sum(LENGTHS)).items():
        np.testing.assert_array_equal(stats["observation.images.front"][key], value)


def test_finalizing_changes_files_and_nothing_else(tmp_path, schema, make_episode):
    writer = DatasetWriter(tmp_path, schema)
    assert [writer.add_episode(make_episode(number)) for number in range(3)] == [0, 1, 2]
    before = LeRobotDataset(tmp_path)
    episodes, stats = [before.episode(i) for i in range(3)], before.stats
    assert len(list(tmp_path.rglob("file-*"))) == 12
    writer.finalize()
    assert len(list(tmp_path.rglob("file-*"))) == 4
    after = LeRobotDataset(tmp_path)
    for number, episode in enumerate(episodes):
        for camera in after.cameras:
            np.testing.assert_array_equal(after.episode_images(number, camera), episode.images[camera])
        assert_same_episode(after.episode(number), episode)
    assert {name: {key: v.tolist() for key, v in s.items()} for name, s in after.stats.items()} == {
        name: {key: v.tolist() for key, v in s.items()} for name, s in stats.items()
    }


def test_files_keep_to_their_size_limit(tmp_path, schema, make_episode):
    with DatasetWriter(tmp_path, schema, data_file_mb=1, video_file_mb=1) as writer:
        info = writer._info
        writer.add_episode(make_episode(0))
        size = max(path.stat().st_size for path in tmp_path.rglob("*.mp4"))
        writer._info = info | {"video_files_size_in_mb": 2.5 * size / 1024**2, "total_episodes": 1, "total_frames": 6}
        for number in range(1, 7):
            writer.add_episode(make_episode(number))
    dataset = LeRobotDataset(tmp_path)
    shards = [record.videos["observation.images.front"].shard for record in dataset.episodes]
    assert 3 <= len(set(shards)) < 7
    assert shards == sorted(shards)
    assert {record.data_shard for record in dataset.episodes} == {Shard(0, 0)}
    for number in range(7):
        assert_same_episode(dataset.episode(number), make_episode(number))


def test_a_recording_may_go_on_after_finalizing(dataset_root, make_episode):
    with DatasetWriter.resume(dataset_root) as writer:
        assert (writer.num_episodes, writer.num_frames) == (5, sum(LENGTHS))
        writer.add_episode(make_episode(5))
        writer.finalize()
        writer.add_episode(make_episode(6))
    dataset = LeRobotDataset(dataset_root)
    for number, length in enumerate((*LENGTHS, 6, 6)):
        assert_same_episode(dataset.episode(number), make_episode(number, length))
    assert len(list(dataset_root.rglob("file-*"))) == 4
    histogram = pixel_histogram(
        np.concatenate([make_episode(n, k).images["wrist"] for n, k in enumerate((*LENGTHS, 6, 6))])
    )
    np.testing.assert_array_equal(
        dataset.stats["observation.images.wrist"]["q10"], image_statistics(histogram, len(dataset))["q10"]
    )


def test_tasks_are_found_by_value(dataset_root):
    table = pq.read_table(dataset_root / TASKS_PATH)
    pq.write_table(table.take([1, 0]), dataset_root / TASKS_PATH)
    dataset = LeRobotDataset(dataset_root)
    assert dataset.tasks == {0: "pick up the red cube", 1: "grüße den Würfel"}
    assert dataset.episode(1).task == "grüße den Würfel"


def test_episodes_files_of_other_programs_may_differ_in_type(dataset_root):
    path = dataset_root / EPISODES_PATH.format(chunk_index=0, file_index=0)
    table = pq.read_table(path).replace_schema_metadata(None)
    name = "stats/frame_index/min"
    column = pa.array([[0.0], [0.0]])
    pq.write_table(table.slice(0, 3), path)
    pq.write_table(
        table.slice(3).set_column(table.schema.get_field_index(name), name, column), path.with_name("file-001.parquet")
    )
    assert [record.length for record in LeRobotDataset(dataset_root).episodes] == list(LENGTHS)


def test_an_empty_dataset_opens(tmp_path, schema):
    with DatasetWriter(tmp_path, schema):
        pass
    dataset = LeRobotDataset(tmp_path)
    assert (len(dataset), dataset.episodes, dataset.tasks) == (0, (), {})
    assert dataset.states.shape == (0, 2)
    with pytest.raises(ValueError, match="There is no frame 0"):
        dataset.frame(0)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    widths=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)),
    dtype=st.sampled_from(["float32", "float64", "int64", "bool"]),
    tasks=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3),
    fps=st.sampled_from([1, 7, 30, 50]),
    num_cameras=st.integers(0, 1),
)
def test_any_shape_of_dataset(tmp_path_factory, lengths, widths, dtype, tasks, fps, num_cameras):
    rng = np.random.default_rng(0)
    schema = DatasetSchema(
        fps=fps,
        robot_type="any",
        state_names=tuple("abc"[: widths[0]]),
        action_names=tuple("abc"[: widths[1]]),
        image_sizes={"eye": (16, 16)} if num_cameras else {},
        extras={"extra": ExtraColumn(dtype=dtype, names=tuple("ab"[: widths[2]]))},
    )
    episodes = [
        Episode(
            images={"eye": np.full((length, 16, 16, 3), 50 + 10 * number, np.uint8)} if num_cameras else {},
            state=rng.normal(size=(length, widths[0])).astype(np.float32),
            action=rng.normal(size=(length, widths[1])).astype(np.float32),
            task=tasks[number % len(tasks)],
            extras={"extra": rng.integers(0, 2, length if widths[2] == 1 else (length, 2)).astype(dtype)},
        )
        for number, length in enumerate(lengths)
    ]
    root = tmp_path_factory.mktemp("any")
    with DatasetWriter(root, schema) as writer:
        for episode in episodes:
            writer.add_episode(episode)
    assert writer.schema == schema
    dataset = LeRobotDataset(root)
    for number, episode in enumerate(episodes):
        assert_same_episode(dataset.episode(number), episode)
    assert DatasetWriter.resume(root).schema == schema


def first_pixels(dataset: LeRobotDataset) -> list[int]:
    return [int(dataset.frame(index).images["front"][0, 0, 1]) for index in range(len(dataset))]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_loader_process_reads_the_same(dataset_root, start_method):
    dataset = LeRobotDataset(dataset_root)
    expected = first_pixels(dataset)
    with ProcessPoolExecutor(1, mp_context=get_context(start_method)) as pool:
        assert pool.submit(first_pixels, dataset).result() == expected == first_pixels(dataset)
    assert first_pixels(pickle.loads(pickle.dumps(dataset))) == expected


def test_shards_count_on_into_the_next_chunk():
    assert Shard(0, FILES_PER_CHUNK - 1).next() == Shard(1, 0) > Shard(0, FILES_PER_CHUNK - 1)
    assert Shard(2, 31).path("chunk-{chunk_index:03d}/file-{file_index:03d}") == "chunk-002/file-031"


def test_schema_of_an_embodiment():
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(112, 112))
    assert (schema.fps, list(schema.image_sizes), len(schema.action_names)) == (15, ["front", "wrist"], 6)
    with pytest.raises(ValueError, match=r"no cameras of its own. Name them"):
        DatasetSchema.for_embodiment(EMBODIMENTS["so100_so101_molmoact2"], image_size=(112, 112))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, r"exactly the cameras \['front', 'wrist'\], got \[\]"),
        ({"extras": {}}, "exactly the extra columns"),
        ({"state": np.zeros((6, 3), np.float32)}, r"'observation.state' must be float32 of shape \[6, 2\], got"),
        ({"action": np.zeros((6, 3))}, r"must be float32 of shape \[6, 3\], got float64"),
        ({"state": np.full((6, 2), np.nan, np.float32)}, "must be finite"),
        ({"state": np.zeros((5, 2), np.float32)}, r"shape \[6, 2\], got float32 of shape \[5, 2\]"),
        ({"task": " "}, "a task in words"),
        ({"action": np.zeros((0, 3), np.float32)}, "at least one frame"),
    ],
)
def test_wrong_episodes_are_refused_before_anything_is_written(tmp_path, schema, make_episode, change, message):
    episode = make_episode(0)
    writer = DatasetWriter(tmp_path, schema)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        writer.add_episode(Episode(**{**vars(episode), **change}))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 12.5}, "fps must be an int"),
        ({"state_names": ()}, "at least one state"),
        ({"image_sizes": {"front": (31, 48)}}, "both even"),
        ({"image_sizes": {"../front": (32, 48)}}, "camera's name"),
        ({"extras": {"timestamp": ExtraColumn()}}, "may not be called"),
    ],
)
def test_wrong_schemas_are_refused(schema, change, message):
    with pytest.raises(ValueError, match=message):
        DatasetSchema(**{**vars(schema), **change})


def test_a_dataset_is_not_written_over(dataset_root, schema):
    with pytest.raises(ValueError, match=r"not empty.*DatasetWriter.resume"):
        DatasetWriter(dataset_root, schema)
    with pytest.raises(ValueError, match="not empty"):
        DatasetWriter(dataset_root / "meta/info.json", schema)


def test_unknown_names_are_answered_with_a_suggestion(dataset_root):
    dataset = LeRobotDataset(dataset_root)
    with pytest.raises(ValueError, match=r"Unknown camera 'frnt'. Did you mean 'front'"):
        dataset.episode_images(0, "frnt")
    with pytest.raises(ValueError, match=r"Did you mean 'next.reward'"):
        dataset.column("next_reward")
    with pytest.raises(ValueError, match="There is no episode 5"):
        dataset.episode(5)
