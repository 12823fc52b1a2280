"""Damaged and contradictory datasets are refused with the name of the file, never read wrongly."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molmoact2.data import LeRobotDataset
from molmoact2.data.video import join_videos

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
VIDEO = "videos/observation.images.wrist/chunk-000/file-000.mp4"
FRONT = "observation.images.front"


def read_everything(root: Path) -> None:
    """Open a dataset and read all of it."""
    dataset = LeRobotDataset(root)
    for number in range(len(dataset.episodes)):
        dataset.episode(number)
    assert dataset.stats is not None


def change_info(root: Path, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_table(path: Path, change) -> None:
    table = change(pq.read_table(path))
    pq.write_table(table, path)


def with_column(name: str, values: pa.Array):
    """A change of a table: give one column other values."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, values)

    return change


def test_the_fixture_is_sound(dataset_root):
    read_everything(dataset_root)


@pytest.mark.parametrize("name", ["meta/info.json", TASKS, DATA, VIDEO])
def test_missing_files(dataset_root, name):
    (dataset_root / name).unlink()
    with pytest.raises(ValueError, match=Path(name).name):
        read_everything(dataset_root)


def test_missing_statistics_are_computed_again(dataset_root):
    before = LeRobotDataset(dataset_root).stats
    (dataset_root / "meta/stats.json").unlink()
    after = LeRobotDataset(dataset_root).stats
    assert after.keys() == before.keys()
    np.testing.assert_array_equal(after[FRONT]["q90"], before[FRONT]["q90"])


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"info.json: the file is missing. Is this the root of a LeRobot v3.0 dataset"):
        LeRobotDataset(tmp_path / "nowhere")


def test_missing_episodes(dataset_root):
    (dataset_root / EPISODES).unlink()
    with pytest.raises(ValueError, match=r"info.json: it promises 5 episodes, .* no row for \[0, 1, 2, 3, 4\]"):
        LeRobotDataset(dataset_root)


@pytest.mark.parametrize("name", ["meta/info.json", "meta/stats.json", TASKS, DATA, EPISODES, VIDEO])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_truncated_files(dataset_root, name, kept):
    content = (dataset_root / name).read_bytes()
    (dataset_root / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=Path(name).name):
        read_everything(dataset_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(codebase_version="v2.0"), r"version is 'v2.0', this reader knows 'v3.0' and 'v2.1'"),
        (lambda info: info.pop("codebase_version"), "codebase_version is None"),
        (lambda info: info.update(fps=0), "fps is 0"),
        (lambda info: info.update(total_frames=29), "promises 29 frames, the episodes of meta/episodes have 30"),
        (lambda info: info.update(total_episodes=6), r"no row for \[5\]"),
        (lambda info: info.update(total_episodes=-1), "total_episodes is -1"),
        (lambda info: info.update(features=[]), "no features"),
        (lambda info: info.update(data_path="data/{chunk}.parquet"), "data_path is"),
        (lambda info: info.update(video_path=None), "video_path is None"),
        (lambda info: info["features"].pop("action"), "Unknown column 'action'"),
        (lambda info: info["features"].pop("index"), r"features \['index'\] are missing"),
        (lambda info: info["features"]["index"].update(dtype="string"), r"\['index'\] are missing or no numbers"),
        (lambda info: info["features"]["action"].update(shape=[7]), r"'action' is not float32 of shape \[30, 7\]"),
        (lambda info: info["features"]["action"].update(dtype="int64"), r"'action' is not int64"),
        (lambda info: info["features"]["action"].update(shape="three"), "has the shape 'three'"),
        (lambda info: info["features"][FRONT].update(dtype="image"), "not pictures"),
        (lambda info: info["features"][FRONT].update(shape=[32]), r"not \[height, width, channels\]"),
        (lambda info: info["features"][FRONT].update(shape=[48, 32, 3]), r"shape \[32, 48, 3\], not \[48, 32, 3\]"),
        (
            lambda info: info["features"].update(lost={"dtype": "float32", "shape": [1], "names": None}),
            "column 'lost' is missing",
        ),
        (lambda info: info["features"].update({"observation.images.top": info["features"][FRONT]}), "is missing"),
    ],
)
def test_wrong_info(dataset_root, change, message):
    change_info(dataset_root, change)
    with pytest.raises(ValueError, match=message):
        read_everything(dataset_root)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (DATA, lambda table: table.slice(0, 29), r"file-000.parquet: its rows are not those of the episodes 0 to 4"),
        (DATA, lambda table: table.drop_columns("action"), "column 'action' is missing"),
        (DATA, lambda table: table.drop_columns("episode_index"), "column 'episode_index' is missing"),
        (DATA, lambda table: pa.concat_tables([table.slice(15), table.slice(0, 15)]), "its rows are not those"),
        (DATA, with_column("index", pa.array(np.arange(30)[::-1])), "'index' does not count"),
        (DATA, with_column("frame_index", pa.array(np.arange(30))), "'frame_index' does not count"),
        (DATA, with_column("next.reward", pa.array([None] * 30, pa.float32())), "'next.reward' is not"),
        (DATA, with_column("action", pa.array(["a"] * 30)), "'action' is not float32"),
        (DATA, with_column("timestamp", pa.array(np.arange(30, dtype=np.float32))), r"mp4: no frame at"),
        (DATA, with_column("task_index", pa.array([9] * 30)), r"no instruction for the task indices \[9\]"),
        (EPISODES, lambda table: table.slice(1), r"no row for \[0\]"),
        (EPISODES, lambda table: table.drop_columns("length"), "column 'length' is missing"),
        (EPISODES, lambda table: table.drop_columns(f"videos/{FRONT}/file_index"), "file_index' is missing"),
        (
            EPISODES,
            with_column("length", pa.array([4, 5, 6, 7, 9])),
            "episode 4 has rows 22 to 30 and length 9",
        ),
        (EPISODES, with_column("length", pa.array(list("abcde"))), "'length' is string"),
        (
            EPISODES,
            with_column("data/file_index", pa.array([1] * 5)),
            r"file-001.parquet: the file is missing",
        ),
        (
            EPISODES,
            with_column(f"videos/{FRONT}/from_timestamp", pa.array([9.0] * 5)),
            r"mp4: no frame at 9.0\d* s: the video ends before",
        ),
        (
            EPISODES,
            with_column(f"videos/{FRONT}/from_timestamp", pa.array([float("nan")] * 5)),
            "has the times",
        ),
        (TASKS, lambda table: table.rename_columns(["task_index", "text"]), "not task_index and task"),
        (TASKS, with_column("task_index", pa.array([0, 0])), "not distinct"),
        (TASKS, with_column("task", pa.array([1, 2])), "not distinct numbers with texts"),
    ],
)
def test_wrong_tables(dataset_root, name, change, message):
    change_table(dataset_root / name, change)
    with pytest.raises(ValueError, match=message):
        read_everything(dataset_root)


def test_video_shorter_than_said(dataset_root):
    shutil.copy(dataset_root / VIDEO, dataset_root / "whole.mp4")
    join_videos(dataset_root / VIDEO, [(dataset_root / "whole.mp4", 25)], fps=15)
    dataset = LeRobotDataset(dataset_root)
    dataset.episode(3)
    with pytest.raises(ValueError, match=r"wrist/chunk-000/file-000.mp4: no frame at 1.66\d* s: the video ends before"):
        dataset.episode(4)


def test_damaged_video_stream(dataset_root):
    content = bytearray((dataset_root / VIDEO).read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    (dataset_root / VIDEO).write_bytes(content)
    dataset = LeRobotDataset(dataset_root)
    for number in range(5):
        try:
            assert dataset.episode_images(number, "wrist").shape[0] == dataset.episodes[number].length
        except ValueError as error:
            assert "file-000.mp4" in str(error)  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 99) | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pick=st.lists(st.integers(0, 99), min_size=1, max_size=4), value=JSON)
def test_any_change_of_info_is_read_or_refused(dataset_root, pick, value):
    path = dataset_root / "meta/info.json"
    original = path.read_text()
    info = json.loads(original)
    place, key = info, None
    for number in pick:
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            break
        parent, key = place, keys[number % len(keys)]
        place = place[key]
    parent[key] = copy.deepcopy(value)
    path.write_text(json.dumps(info))
    try:
        LeRobotDataset(dataset_root)
    except ValueError as error:
        assert str(dataset_root) in str(error)  # noqa: PT017
    finally:
        path.write_text(original)


def test_a_promise_of_endless_episodes(dataset_root):
    change_info(dataset_root, lambda info: info.update(total_episodes=10**15))
    with pytest.raises(ValueError, match=r"no row for \[5, 6"):
        LeRobotDataset(dataset_root)
