"""The files are what LeRobot v3.0 expects, field by field.

LeRobot 0.4.4 itself was run on such a dataset once (docs/datasets.md); it is too heavy to install here.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
INDEX_COLUMNS = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
CAMERAS = ("observation.images.front", "observation.images.wrist")


def test_files_are_where_they_belong(dataset_root):
    files = {path.relative_to(dataset_root).as_posix() for path in dataset_root.rglob("*") if path.is_file()}
    assert files == {
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        *(f"videos/{camera}/chunk-000/file-000.mp4" for camera in CAMERAS),
    }


def test_info(dataset_root):
    info = json.loads((dataset_root / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "toy",
        "total_episodes": 5,
        "total_frames": 30,
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 15,
        "splits": {"train": "0:5"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert set(features) == {"observation.state", "action", "next.reward", "cube_pose", *CAMERAS, *INDEX_COLUMNS}
    assert features["action"] == {"dtype": "float32", "shape": [3], "names": ["shoulder", "elbow", "gripper"]}
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    video = features["observation.images.front"]
    assert (video["dtype"], video["shape"], video["names"]) == ("video", [32, 48, 3], ["height", "width", "channels"])
    assert {
        key: video["info"][f"video.{key}"] for key in ("height", "width", "codec", "pix_fmt", "fps", "channels")
    } == {
        "height": 32,
        "width": 48,
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "fps": 15,
        "channels": 3,
    }
    assert video["info"]["has_audio"] is False
    assert video["info"]["video.is_depth_map"] is False


def test_data(dataset_root):
    file = pq.ParquetFile(dataset_root / "data/chunk-000/file-000.parquet")
    assert file.num_row_groups == 5
    table = file.read()
    assert table.schema.field("observation.state").type == pa.list_(pa.float32(), 2)
    assert table.schema.field("next.reward").type == pa.float32()
    assert {name: str(table.schema.field(name).type) for name in INDEX_COLUMNS} == {
        "timestamp": "float",
        **dict.fromkeys(INDEX_COLUMNS - {"timestamp"}, "int64"),
    }
    assert table["index"].to_pylist() == list(range(30))
    np.testing.assert_array_equal(
        table["timestamp"].to_numpy(), (table["frame_index"].to_numpy() / 15).astype(np.float32)
    )


def test_tasks(dataset_root):
    table = pq.read_table(dataset_root / "meta/tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1], "task": ["pick up the red cube", "grüße den Würfel"]}
    assert json.loads(table.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_episodes(dataset_root):
    table = pq.read_table(dataset_root / "meta/episodes/chunk-000/file-000.parquet")
    plain = {name for name in table.column_names if not name.startswith("stats/")}
    video = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    assert plain == {
        *("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"),
        *("data/chunk_index", "data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index"),
        *(f"videos/{camera}/{name}" for camera in CAMERAS for name in video),
    }
    rows = table.to_pylist()
    assert [row["dataset_to_index"] for row in rows] == [4, 9, 15, 22, 30]
    assert [row["videos/observation.images.front/from_timestamp"] for row in rows] == [
        k / 15 for k in (0, 4, 9, 15, 22)
    ]
    assert [row["videos/observation.images.front/to_timestamp"] for row in rows] == [k / 15 for k in (4, 9, 15, 22, 30)]
    assert rows[1]["tasks"] == ["grüße den Würfel"]
    assert {name.split("/")[2] for name in table.column_names if name.startswith("stats/action/")} == STATISTICS
    assert np.shape(rows[0]["stats/observation.images.front/mean"]) == (3, 1, 1)
    assert rows[3]["stats/action/count"] == [7]


def test_statistics(dataset_root):
    stats = json.loads((dataset_root / "meta/stats.json").read_text())
    assert set(stats) == {"observation.state", "action", "next.reward", "cube_pose", *CAMERAS, *INDEX_COLUMNS}
    for name, values in stats.items():
        assert set(values) == STATISTICS, name
        assert np.shape(values["count"]) == (1,)
    assert np.shape(stats["observation.state"]["q99"]) == (2,)
    assert np.shape(stats["index"]["q99"]) == (1,)
    assert np.shape(stats["observation.images.wrist"]["q99"]) == (3, 1, 1)
    assert 0 <= stats["observation.images.wrist"]["min"][0][0][0] <= 1
