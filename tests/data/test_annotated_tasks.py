"""The files of new instructions: what is written is read, by us and as pandas would, and nothing malformed passes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data import LeRobotDataset
from molmoact2.data.annotated_tasks import (
    ALL_FROZEN,
    ANNOTATIONS_PATH,
    TASK_EPISODES_PATH,
    read_annotations,
    read_task_episodes,
    write_annotations,
)

TASK_INDEX, EPISODE_INDEX = [0, 0, 1, 1, 0, 2, 0], [0, 0, 1, 1, 2, 2, 3]
"""Episode 2 changes its task in the middle."""


def write(root, annotations):
    write_annotations(root, annotations, task_index=TASK_INDEX, episode_index=EPISODE_INDEX)


def store(root, path, table):
    (root / "meta").mkdir(exist_ok=True)
    pq.write_table(table, root / path)


@given(st.dictionaries(st.integers(0, 3), st.text(min_size=1).filter(str.strip)))
def test_what_is_written_is_read(tmp_path_factory, annotations):
    root = tmp_path_factory.mktemp("dataset")
    write(root, annotations)
    assert read_annotations(root) == annotations


def test_every_task_has_its_episodes(tmp_path):
    write(tmp_path, {1: "pick up the cup"})
    pools = read_task_episodes(tmp_path)
    assert {task: episodes.tolist() for task, episodes in pools.items()} == {0: [0, 2, 3], 1: [1], 2: [2]}


def test_the_format_is_the_one_of_training(tmp_path):
    write(tmp_path, {3: "lift the lid", 0: ALL_FROZEN})
    assert ALL_FROZEN == "<ALL FROZEN FRAMES>"
    table = pq.read_table(tmp_path / "meta/tasks_annotated.parquet")
    assert table.select(["episode_index", "task"]).to_pylist() == [
        {"episode_index": 0, "task": "<ALL FROZEN FRAMES>"},
        {"episode_index": 3, "task": "lift the lid"},
    ]
    assert table.schema.field("episode_index").type == pa.int64()
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["episode_index"]
    pools = pq.read_table(tmp_path / "meta/task_to_episode.parquet")
    assert pools.schema.names == ["task_index", "episode_index"]
    assert pools.num_rows == 5


def test_nothing_else_is_touched(dataset_root):
    before = {path: path.read_bytes() for path in dataset_root.rglob("*") if path.is_file()}
    dataset = LeRobotDataset(dataset_root)
    columns = {name: dataset.column(name) for name in ("task_index", "episode_index")}
    write_annotations(dataset_root, {4: "wave"}, **columns)
    after = {path: path.read_bytes() for path in dataset_root.rglob("*") if path.is_file()}
    assert {path.relative_to(dataset_root).as_posix() for path in after.keys() - before.keys()} == {
        ANNOTATIONS_PATH,
        TASK_EPISODES_PATH,
    }
    assert {path: after[path] for path in before} == before
    assert LeRobotDataset(dataset_root).episode(4).task == dataset.episode(4).task


def test_an_index_that_pandas_keeps_as_a_range(tmp_path):
    index = {"kind": "range", "name": "episode_index", "start": 2, "stop": 6, "step": 2}
    table = pa.table({"task": ["a", "b"]}).replace_schema_metadata({"pandas": json.dumps({"index_columns": [index]})})
    store(tmp_path, ANNOTATIONS_PATH, table)
    assert read_annotations(tmp_path) == {2: "a", 4: "b"}


@pytest.mark.parametrize(
    ("described", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (json.dumps({"index_columns": [{"name": "episode_index", "start": 0}]}), "cannot be read"),
        (
            json.dumps({"index_columns": [{"name": "episode_index", "start": 0, "stop": 10**12, "step": 1}]}),
            "not as long",
        ),
    ],
)
def test_a_malformed_index_is_refused(tmp_path, described, problem):
    store(tmp_path, ANNOTATIONS_PATH, pa.table({"task": ["a"]}).replace_schema_metadata({"pandas": described}))
    with pytest.raises(ValueError, match=rf"tasks_annotated.parquet: .*{problem}"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"episode": [0], "task": ["a"]}, "not episode_index and task"),
        ({"episode_index": [0, 0], "task": ["a", "b"]}, "not distinct episodes"),
        ({"episode_index": [-1], "task": ["a"]}, "not distinct episodes"),
        ({"episode_index": [0.5], "task": ["a"]}, "not distinct episodes"),
        ({"episode_index": [None], "task": ["a"]}, "not distinct episodes"),
        ({"episode_index": [0, 7], "task": ["a", None]}, r"the episodes \[7\] have a row without a text"),
        ({"episode_index": [0, 7], "task": ["a", " "]}, r"the episodes \[7\] have a row without a text"),
        ({"episode_index": [3], "task": [5]}, r"the episodes \[3\] have a row without a text"),
    ],
)
def test_malformed_annotations_are_refused(tmp_path, columns, problem):
    store(tmp_path, ANNOTATIONS_PATH, pa.table(columns))
    with pytest.raises(ValueError, match=rf"tasks_annotated.parquet: .*{problem}.*molmoact2 data annotate"):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"task_index": [0]}, "task_index and episode_index"),
        ({"task_index": [0], "episode_index": ["0"]}, "whole numbers"),
        ({"task_index": [0], "episode_index": pa.array([None], pa.int64())}, "whole numbers"),
        ({"task_index": [0], "episode_index": [-1]}, "negative"),
    ],
)
def test_malformed_pools_are_refused(tmp_path, columns, problem):
    store(tmp_path, TASK_EPISODES_PATH, pa.table(columns))
    with pytest.raises(ValueError, match=rf"task_to_episode.parquet: .*{problem}"):
        read_task_episodes(tmp_path)


@pytest.mark.parametrize("read", [read_annotations, read_task_episodes])
def test_missing_and_damaged_files_are_named(tmp_path, read):
    with pytest.raises(ValueError, match=r"parquet: the file is missing"):
        read(tmp_path)
    write(tmp_path, {0: "wave"})
    for path in (ANNOTATIONS_PATH, TASK_EPISODES_PATH):
        whole = (tmp_path / path).read_bytes()
        (tmp_path / path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"parquet: it was cut off"):
        read(tmp_path)


def test_what_does_not_belong_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"no episodes \[9\]"):
        write(tmp_path, {0: "wave", 9: "wave"})
    with pytest.raises(ValueError, match=r"episodes \[1\] are empty"):
        write(tmp_path, {0: "wave", 1: " "})
    assert not (tmp_path / "meta").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    write(tmp_path, {0: "wave"})

    class FullDiskError(OSError):
        pass

    def fail(*_):
        raise FullDiskError

    monkeypatch.setattr("molmoact2.data.files.pq.ParquetWriter.write_table", fail)
    with pytest.raises(FullDiskError):
        write(tmp_path, {0: "nod"})
    assert read_annotations(tmp_path) == {0: "wave"}
    assert sorted(path.name for path in (tmp_path / "meta").iterdir()) == [
        "task_to_episode.parquet",
        "tasks_annotated.parquet",
    ]


def test_no_annotations_are_a_file_too(tmp_path):
    write_annotations(tmp_path, {}, task_index=np.empty(0, int), episode_index=np.empty(0, int))
    assert read_annotations(tmp_path) == {}
    assert read_task_episodes(tmp_path) == {}
