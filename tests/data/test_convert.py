"""Converting loses nothing that can be kept, and is whole or not there at all."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from old_datasets import change_info, write_old
from rlds_folders import make_episode as make_record
from rlds_folders import write_rlds

from molmoact2.data import LeRobotDataset, convert, open_dataset, upgrade
from molmoact2.data.convert import convert_dataset
from molmoact2.data.files import Shard
from molmoact2.data.statistics import column_statistics
from molmoact2.data.tfrecord import masked_crc
from molmoact2.data.video import packet_times

SHARED = Path(__file__).parents[3] / "shared" / "data"
LENGTHS = (4, 5, 6, 7, 8)
FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture
def episodes(make_episode):
    return [make_episode(number, length) for number, length in enumerate(LENGTHS)]


@pytest.fixture
def old_root(tmp_path, schema, episodes):
    return write_old(tmp_path / "old", schema, episodes)


def convert_quietly(source, output, **options):
    return convert_dataset(source, output, show_progress=False, **options)


def assert_equal_datasets(old: LeRobotDataset, new: LeRobotDataset, episodes: list[int] | None = None) -> None:
    """Columns to the last bit but for the numbers of episodes, frames to the last pixel."""
    episodes = list(range(len(old.episodes))) if episodes is None else episodes
    assert new.version == "v3.0"
    assert (new.features, new.cameras, new.fps, new.tasks) == (old.features, old.cameras, old.fps, old.tasks)
    rows = np.concatenate([np.arange(old.episodes[i].from_index, old.episodes[i].to_index) for i in episodes])
    assert len(new) == len(rows)
    for name in set(old.column_names) - {"episode_index", "index"}:
        assert new.column(name).tobytes() == old.column(name)[rows].tobytes()
    for index, row in enumerate(rows):
        found, expected = new.frame(index), old.frame(int(row))
        for camera in old.cameras:
            np.testing.assert_array_equal(found.images[camera], expected.images[camera])
        assert found.task == expected.task


def test_v21_comes_back_equal(old_root, tmp_path):
    conversion = convert_quietly(old_root, tmp_path / "new")
    assert (conversion.source, conversion.num_episodes, conversion.num_frames) == ("LeRobot v2.1", 5, sum(LENGTHS))
    assert conversion.pictures.startswith("unchanged")
    old, new = open_dataset(old_root), open_dataset(tmp_path / "new")
    assert_equal_datasets(old, new)
    assert new.column("index").tolist() == old.column("index").tolist()
    assert new.info["splits"] == {"train": "0:5"}


def test_episodes_share_files_and_video_keeps_its_packets(old_root, tmp_path):
    convert_quietly(old_root, tmp_path / "new")
    names = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("file-*")}
    assert names == {
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        f"videos/{FRONT}/chunk-000/file-000.mp4",
        f"videos/{WRIST}/chunk-000/file-000.mp4",
    }
    times = packet_times(tmp_path / "new" / f"videos/{WRIST}/chunk-000/file-000.mp4")
    np.testing.assert_allclose(times, np.arange(sum(LENGTHS)) / 15, atol=1e-4)
    assert pq.ParquetFile(tmp_path / "new/data/chunk-000/file-000.parquet").num_row_groups == len(LENGTHS)


def test_statistics_are_written_per_episode_and_over_all(old_root, tmp_path, episodes):
    convert_quietly(old_root, tmp_path / "new")
    new = open_dataset(tmp_path / "new")
    stored = json.loads((tmp_path / "new/meta/stats.json").read_text())
    assert stored.keys() == new.stats.keys() == set(new.column_names) | {FRONT, WRIST}
    old = open_dataset(old_root).stats
    for name, stats in new.stats.items():
        assert {key: value.tolist() for key, value in stats.items()} == {k: v.tolist() for k, v in old[name].items()}
    row = pq.read_table(tmp_path / "new/meta/episodes/chunk-000/file-000.parquet").to_pylist()[2]
    for key, value in column_statistics(episodes[2].action).items():
        assert row[f"stats/action/{key}"] == value.tolist()
    assert (row["dataset_from_index"], row["tasks"]) == (9, [episodes[2].task])
    assert row[f"stats/{FRONT}/count"] == [6]


def test_files_keep_to_their_size_limit(old_root, tmp_path, monkeypatch):
    size = max(path.stat().st_size for path in old_root.rglob("*.mp4"))
    monkeypatch.setattr(upgrade, "VIDEO_FILE_MB", 2.5 * size / 1024**2)
    monkeypatch.setattr(upgrade, "DATA_FILE_MB", 0)
    convert_quietly(old_root, tmp_path / "new")
    new = open_dataset(tmp_path / "new")
    assert [record.data_shard for record in new.episodes] == [Shard(0, number) for number in range(5)]
    assert 2 <= len({record.videos[FRONT].shard for record in new.episodes}) < 5
    assert_equal_datasets(open_dataset(old_root), new)


def test_only_the_complete_episodes(old_root, tmp_path):
    (old_root / f"videos/chunk-000/{FRONT}/episode_000001.mp4").unlink()
    (old_root / f"videos/chunk-001/{WRIST}/episode_000004.mp4").unlink()
    with pytest.raises(ValueError, match=r"episode_000001.mp4: the video of episode 1 is missing.*--only-with-video"):
        convert_quietly(old_root, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    conversion = convert_quietly(old_root, tmp_path / "new", only_with_video=True)
    assert conversion.left_out == (1, 4)
    new = open_dataset(tmp_path / "new")
    assert_equal_datasets(open_dataset(old_root), new, [0, 2, 3])
    assert new.column("episode_index").tolist() == [0] * 4 + [1] * 6 + [2] * 7
    assert new.info["splits"] == {"train": "0:3"}
    assert new.stats["index"]["max"].tolist() == [16]
    assert new.stats[FRONT]["count"].tolist() == [17]


def test_videos_that_cannot_be_joined_are_copied(tmp_path, schema, episodes):
    """One of another encoding, one with B-frames, and one with a frame too many."""
    import av

    root = write_old(tmp_path / "old", schema, episodes)
    for number, options in ((1, {"bf": "0", "profile": "high"}), (2, {"bf": "2", "b_strategy": "0"}), (3, {"bf": "0"})):
        images = episodes[number].images["front"]
        images = np.concatenate([images, images[-1:]]) if number == 3 else images
        path = next(root.rglob(f"{FRONT}/episode_00000{number}.mp4"))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=schema.fps, options=options)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    convert_quietly(root, tmp_path / "new")
    new = open_dataset(tmp_path / "new")
    assert_equal_datasets(open_dataset(root), new)
    assert [record.videos[FRONT].shard.file_index for record in new.episodes] == [0, 1, 2, 3, 4]
    for number in (1, 2, 3):
        copied = tmp_path / "new" / f"videos/{FRONT}/chunk-000/file-{number:03d}.mp4"
        assert copied.read_bytes() == next(root.rglob(f"{FRONT}/episode_00000{number}.mp4")).read_bytes()


def test_a_video_with_too_few_frames(old_root, tmp_path):
    short, long = (old_root / f"videos/chunk-000/{FRONT}/episode_00000{number}.mp4" for number in (0, 2))
    long.write_bytes(short.read_bytes())
    with pytest.raises(ValueError, match=r"episode_000002.mp4: it has 4 frames, its episode has 6"):
        convert_quietly(old_root, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    long.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"episode_000002.mp4: .*no readable video"):
        convert_quietly(old_root, tmp_path / "new")


def test_pictures_texts_and_depth_come_along(tmp_path, schema, episodes):
    depth = {"dtype": "string", "shape": [1], "names": None}
    root = write_old(
        tmp_path / "old", schema, episodes, image_format="PNG", features={"note": depth}, columns={"note": "slow"}
    )
    convert_quietly(root, tmp_path / "new")
    new = open_dataset(tmp_path / "new")
    assert_equal_datasets(open_dataset(root), new)
    assert new.other_features == ("note",)
    table = pq.read_table(tmp_path / "new/data/chunk-000/file-000.parquet")
    assert table["note"].to_pylist() == ["slow"] * sum(LENGTHS)


def test_features_in_unknown_files_are_refused(old_root, tmp_path):
    sound = {"dtype": "audio", "shape": [1], "names": None}
    change_info(old_root, lambda info: info["features"].update(sound=sound))
    with pytest.raises(ValueError, match=r"the features \['sound'\] are kept in files that are not known here"):
        convert_quietly(old_root, tmp_path / "new")


def test_what_needs_no_converting(recorded_once, tmp_path):
    with pytest.raises(ValueError, match=r"is LeRobot v3.0 already"):
        convert_quietly(recorded_once, tmp_path / "new")


def test_nothing_is_written_over(old_root, tmp_path):
    (tmp_path / "new").mkdir()
    convert_quietly(old_root, tmp_path / "new")
    with pytest.raises(ValueError, match="exists already"):
        convert_quietly(old_root, tmp_path / "new")


TOY = """
fps = 10
robot_type = "toy"
state = ["observation/state", "is_last"]

[cameras]
front = "observation/image_0"
black = "observation/image_1"
"""


@pytest.fixture
def mapping(tmp_path):
    (tmp_path / "toy.toml").write_text(TOY)
    return tmp_path / "toy.toml"


def records(lengths) -> list[dict]:
    return [make_record(number, length) for number, length in enumerate(lengths)]


def test_rlds_becomes_lerobot(tmp_path, mapping):
    made = records((3, 4, 2))
    folder = write_rlds(tmp_path / "toy", {"train": [made[:1], made[1:2]], "val": [made[2:]]}, masked_crc)
    conversion = convert_quietly(folder, tmp_path / "new", mapping=mapping)
    assert (conversion.source, conversion.num_episodes, conversion.num_frames) == ("RLDS toy", 3, 9)
    assert conversion.black_episodes == {"black": 3}
    assert conversion.pictures == "encoded anew as H.264"
    new = open_dataset(tmp_path / "new")
    assert (new.fps, new.cameras, new.info["robot_type"]) == (10, ("front", "black"), "toy")
    assert new.features["observation.state"]["names"] == [f"state_{index}" for index in range(8)]
    for number, record in enumerate(made):
        episode = new.episode(number)
        assert episode.action.tobytes() == record["steps/action"].tobytes()
        assert episode.state[:, :7].tobytes() == record["steps/observation/state"].tobytes()
        assert episode.state[:, 7].tolist() == record["steps/is_last"].tolist()
        assert episode.task == f"do task {number % 2}"
        brightness = episode.images["front"].mean(axis=(1, 2, 3))
        assert np.abs(brightness - (40 * number + 3 * np.arange(len(brightness)))).max() < 2


def test_one_split(tmp_path, mapping):
    made = records((3, 4))
    folder = write_rlds(tmp_path / "toy", {"train": [made[:1]], "val": [made[1:]]}, masked_crc)
    assert convert_quietly(folder, tmp_path / "new", mapping=mapping, splits=["val"]).num_frames == 4
    with pytest.raises(ValueError, match="Unknown split 'test'"):
        convert_quietly(folder, tmp_path / "other", mapping=mapping, splits=["test"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps/language_instruction": [b""] * 3}, "has an empty instruction. Say in a mapping"),
        ({"steps/language_instruction": [b"a", b"a", b"b"]}, "has 2 instructions, not one"),
        ({"steps/language_instruction": [b"a"]}, r"features of different lengths: \[1, 3\]"),
        ({"steps/is_last": np.zeros(2, np.int64)}, r"have different lengths: \[2, 3\]"),
        ({"steps/action": np.full(21, np.nan, np.float32)}, "cannot be written. Column 'action' must be finite"),
    ],
)
def test_wrong_records_leave_nothing(tmp_path, mapping, change, message):
    made = records((3, 3))
    folder = write_rlds(tmp_path / "toy", {"train": [[made[0], made[1] | change]]}, masked_crc)
    with pytest.raises(ValueError, match=rf"toy-train.tfrecord-00000-of-00001: .*at byte [1-9]\d+.*{message}"):
        convert_quietly(folder, tmp_path / "new", mapping=mapping)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy", "toy.toml"]


def test_episodes_without_instruction_may_be_given_one(tmp_path, mapping):
    made = records((3, 3))
    made[1] |= {"steps/language_instruction": [b" "] * 3}
    folder = write_rlds(tmp_path / "toy", {"train": [made]}, masked_crc)
    mapping.write_text('no_instruction = "play"\n' + mapping.read_text())
    convert_quietly(folder, tmp_path / "new", mapping=mapping)
    assert open_dataset(tmp_path / "new").tasks == {0: "do task 0", 1: "play"}


def test_a_failure_is_cleared_away(old_root, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError("disk full")

    monkeypatch.setattr(upgrade, "write_statistics", fail)
    with pytest.raises(OSError, match="disk full"):
        convert_quietly(old_root, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


KILLED = """
import sys, time
from pathlib import Path
from molmoact2.data import {module} as module
from molmoact2.data.convert import convert_dataset
original = module.{function}
def slowly(*arguments, **options):
    print("here", flush=True)
    time.sleep({pause})
    return original(*arguments, **options)
module.{function} = slowly
convert_dataset(sys.argv[1], sys.argv[2], show_progress=False, mapping=Path(sys.argv[3]))
"""


def kill_a_conversion(source: Path, output: Path, mapping: Path, *, module: str, function: str) -> None:
    """Convert in another process, and kill it when it comes to `function`."""
    script = KILLED.format(module=module, function=function, pause=60)
    command = [sys.executable, "-c", script, str(source), str(output), str(mapping)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("module", "function"), [("upgrade", "write_table"), ("upgrade", "join_videos"), ("upgrade", "write_json")]
)
def test_a_killed_conversion_leaves_nothing_and_begins_anew(old_root, tmp_path, module, function):
    kill_a_conversion(old_root, tmp_path / "new", tmp_path, module=module, function=function)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.unfinished", "old"]
    convert_quietly(old_root, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    assert_equal_datasets(open_dataset(old_root), open_dataset(tmp_path / "new"))


def test_a_killed_conversion_of_rlds_leaves_nothing_and_begins_anew(tmp_path, mapping):
    folder = write_rlds(tmp_path / "toy", {"train": [records((3, 2))]}, masked_crc)
    kill_a_conversion(folder, tmp_path / "new", mapping, module="writer", function="compact")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.unfinished", "toy", "toy.toml"]
    assert convert_quietly(folder, tmp_path / "new", mapping=mapping).num_frames == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "toy", "toy.toml"]


def test_the_final_name_appears_at_once(tmp_path):
    with convert.appearing(tmp_path / "new") as folder:
        (folder / "a").write_text("a")
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new/a").read_text() == "a"


@pytest.mark.skipif(not (SHARED / "g1_bottle").is_dir(), reason=f"no Unitree G1 demonstrations in {SHARED}")
def test_real_v21_with_few_videos(tmp_path):
    """AV1 in files of one episode: joined without being encoded again."""
    conversion = convert_quietly(SHARED / "g1_bottle", tmp_path / "new", only_with_video=True)
    assert (conversion.num_episodes, conversion.num_frames, len(conversion.left_out)) == (4, 1234, 96)
    old, new = open_dataset(SHARED / "g1_bottle"), open_dataset(tmp_path / "new")
    assert len({record.videos["observation.images.cam_high"].shard for record in new.episodes}) == 1
    rows = np.concatenate([np.arange(old.episodes[i].from_index, old.episodes[i].to_index) for i in (1, 2, 29, 30)])
    assert new.actions.tobytes() == old.actions[rows].tobytes()
    for index in (0, 392, 393, 735, 736, 1000, 1233):
        expected, found = old.frame(int(rows[index])), new.frame(index)
        np.testing.assert_array_equal(found.images["cam_high"], expected.images["cam_high"])


@pytest.mark.skipif(not (SHARED / "bridge_debug").is_dir(), reason=f"no WidowX demonstrations in {SHARED}")
def test_real_rlds(tmp_path):
    conversion = convert_quietly(SHARED / "bridge_debug", tmp_path / "new", splits=["train"])
    assert (conversion.num_episodes, conversion.num_frames) == (25, 250)
    assert conversion.black_episodes == {"image_3": 25}
    new = open_dataset(tmp_path / "new")
    assert new.cameras == ("image_0", "image_1", "image_2", "image_3")
    assert new.features["action"]["names"] == ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
