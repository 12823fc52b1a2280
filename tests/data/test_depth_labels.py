"""Depth labels: what is written is read back, and what does not belong to its dataset is refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molmoact2.data import DatasetWriter, LeRobotDataset, open_dataset
from molmoact2.data.depth_labels import CameraLabels, DepthLabels
from molmoact2.data.depth_run import RUN_PATH, LabelRun, read_run
from molmoact2.data.depth_writing import find_labels, open_label_writer
from molmoact2.data.frame_cache import fingerprint
from molmoact2.depth.buffer import buffer_codes

SIDE, NUM_CODES = 3, 20


def run_for(dataset, **changes):
    run = LabelRun(
        dataset=fingerprint(dataset.root),
        num_episodes=len(dataset.episodes),
        num_frames=len(dataset),
        source="made up",
        unit="m",
        cameras=("front", "wrist"),
        codec="0123456789abcdef",
        num_codes=NUM_CODES,
        side=SIDE,
        scale={"kind": "fixed", "low": 0.0, "high": 1.5},
    )
    return replace(run, **changes)


def made_up(run, dataset, episode_index):
    """Labels that are different for every episode and camera."""
    labels = {}
    for number, camera in enumerate(run.cameras):
        rng = np.random.default_rng((episode_index, number))
        shape = (dataset.episodes[episode_index].length, run.num_cells)
        codes, updated = rng.integers(0, run.num_codes, shape), rng.random(shape) < 0.4
        updated[0] = True
        labels[camera] = CameraLabels(codes=codes, buffer_codes=buffer_codes(codes, updated), updated=updated)
    return labels


def write(dataset, run, folder, *, most=1000):
    """Write at most so many of the episodes that are missing."""
    with open_label_writer(dataset, run, folder) as writer:
        for episode_index in writer.todo[:most]:
            writer.add(made_up(run, dataset, episode_index))
        return writer.todo


def assert_all_there(labels, dataset, run):
    for number, camera in enumerate(run.cameras):
        expected = [made_up(run, dataset, index)[camera] for index in range(len(dataset.episodes))]
        np.testing.assert_array_equal(labels.codes(camera), np.concatenate([part.codes for part in expected]))
        np.testing.assert_array_equal(labels.updated(camera), np.concatenate([part.updated for part in expected]))
        buffer = np.concatenate([part.buffer_codes for part in expected])
        np.testing.assert_array_equal(labels.buffer_codes(camera), buffer)
        assert number in (0, 1)


@pytest.fixture
def dataset(recorded_once):
    return LeRobotDataset(recorded_once)


@pytest.fixture(scope="module")
def labelled_once(recorded_once, tmp_path_factory):
    dataset = LeRobotDataset(recorded_once)
    folder = tmp_path_factory.mktemp("labels") / "companion"
    write(dataset, run_for(dataset), folder)
    return folder


@pytest.fixture
def companion(labelled_once, tmp_path):
    """A copy of finished labels, to do with as a test likes."""
    return shutil.copytree(labelled_once, tmp_path / "companion")


def test_labels_are_read_as_they_were_written(dataset, labelled_once):
    labels = DepthLabels.open(labelled_once, dataset)
    assert_all_there(labels, dataset, run_for(dataset))
    assert labels.cameras == ("front", "wrist")
    assert (labels.codec_fingerprint, labels.num_codes) == ("0123456789abcdef", NUM_CODES)
    assert labels.codes("front").dtype == labels.buffer_codes("front").dtype == np.int64
    assert labels.updated("front").dtype == bool


def test_labels_are_a_dataset_of_their_own(dataset, labelled_once):
    companion = open_dataset(labelled_once)
    np.testing.assert_array_equal(companion.states, dataset.states)
    np.testing.assert_array_equal(companion.actions, dataset.actions)
    assert companion.cameras == ()
    assert [r.tasks for r in companion.episodes] == [r.tasks for r in dataset.episodes]
    feature = companion.features["depth.wrist.buffer_codes"]
    assert feature["dtype"] == "int64"
    assert feature["shape"] == [9]
    assert feature["names"][5] == "row 1 column 2"
    assert companion.stats["depth.front.codes"]["max"].max() <= NUM_CODES - 1
    assert len(list(labelled_once.glob("data/*/*.parquet"))) == 1
    assert read_run(labelled_once) == run_for(dataset)


@pytest.mark.parametrize("num_shards", [2, 3, 5])
def test_shards_in_any_order_are_one_labelling(dataset, tmp_path, num_shards):
    runs = [run_for(dataset, shard=(index, num_shards)) for index in range(num_shards)]
    assert [index for run in runs for index in run.episodes] == list(range(5))
    for run in reversed(runs):
        write(dataset, run, tmp_path / "companion")
    assert_all_there(DepthLabels.open(tmp_path / "companion", dataset), dataset, runs[0])


@pytest.mark.parametrize("shard", [(-1, 2), (2, 2), (0, 0), (0, 6)])
def test_a_shard_that_cannot_be(dataset, shard):
    with pytest.raises(ValueError, match=f"got {shard[0]}/{shard[1]}"):
        run_for(dataset, shard=shard)


@pytest.mark.parametrize("cameras", [(), ("front", "front")])
def test_cameras_that_cannot_be(dataset, cameras):
    with pytest.raises(ValueError, match="each of them once"):
        run_for(dataset, cameras=cameras)


def test_shards_that_are_missing_or_overlap(dataset, tmp_path):
    folder = tmp_path / "companion"
    for index in (0, 2):
        write(dataset, run_for(dataset, shard=(index, 3)), folder)
    write(dataset, run_for(dataset, shard=(1, 3)), folder, most=1)
    with pytest.raises(ValueError, match=r"needs each of the shards 0/3 to 2/3 once, it has 0/3, 2/3\. Label"):
        DepthLabels.open(folder, dataset)
    write(dataset, run_for(dataset, shard=(1, 3)), folder)
    DepthLabels.open(folder, dataset)
    write(dataset, run_for(dataset, shard=(0, 2)), folder)
    with pytest.raises(ValueError, match=r"it has 0/2, 0/3, 1/3, 2/3\."):
        DepthLabels.open(folder, dataset)


@pytest.mark.parametrize(
    ("name", "value"), [("codec", "another"), ("source", "laser"), ("scale", {}), ("num_codes", 99), ("num_frames", 31)]
)
def test_shards_that_disagree(dataset, tmp_path, name, value):
    for index, change in enumerate(({}, {name: value})):
        write(dataset, run_for(dataset, shard=(index, 2), **change), tmp_path)
    with pytest.raises(ValueError, match=f"disagree on their {name}"):
        DepthLabels.open(tmp_path, dataset)


def test_interrupted_labels_go_on(dataset, labelled_once, tmp_path):
    folder, run = tmp_path / "companion", run_for(dataset)
    for done in (0, 1, 3):
        assert list(write(dataset, run, folder, most=min(done, 2))) == list(range(done, 5))
        assert not folder.exists()
        with pytest.raises(ValueError, match=r"no finished depth labels.*the same command continues it"):
            DepthLabels.open(folder, dataset)
    write(dataset, run, folder)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert files == sorted(path.relative_to(labelled_once) for path in labelled_once.rglob("*.*"))
    for path in (path for path in files if path.suffix == ".parquet" and path.parts[0] == "data"):
        assert pq.read_table(folder / path).equals(pq.read_table(labelled_once / path))
    assert [path.name for path in tmp_path.iterdir()] == ["companion"]


def test_an_error_keeps_what_was_finished(dataset, tmp_path):
    folder, run = tmp_path / "companion", run_for(dataset)
    wrong = made_up(run, dataset, 4)

    def one_right_one_wrong():
        with open_label_writer(dataset, run, folder) as writer:
            writer.add(made_up(run, dataset, 0))
            writer.add(wrong)

    with pytest.raises(ValueError, match="must be int64 of shape"):
        one_right_one_wrong()
    assert list(write(dataset, run, folder)) == []
    assert_all_there(DepthLabels.open(folder, dataset), dataset, run)


def test_labels_of_another_kind_are_not_continued(dataset, tmp_path):
    write(dataset, run_for(dataset), tmp_path / "companion", most=2)
    with pytest.raises(ValueError, match=r"source was 'made up', is 'laser'.*repeat the earlier settings"):
        write(dataset, run_for(dataset, source="laser"), tmp_path / "companion")
    write(dataset, run_for(dataset), tmp_path / "companion")
    assert find_labels(run_for(dataset), tmp_path / "companion") == tmp_path / "companion"
    with pytest.raises(ValueError, match="codec was '0123456789abcdef', is 'new'"):
        find_labels(run_for(dataset, codec="new"), tmp_path / "companion")
    with pytest.raises(ValueError, match="is there already"):
        write(dataset, run_for(dataset), tmp_path / "companion")


def test_what_is_in_the_way_stays(dataset, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_anna.txt").write_text("dear Anna")
    with pytest.raises(ValueError, match="is in the way"):
        find_labels(run_for(dataset), tmp_path / "letters")
    (tmp_path / "letters").rename(tmp_path / "letters.partial")
    with pytest.raises(ValueError, match="is in the way"):
        write(dataset, run_for(dataset), tmp_path / "letters")
    assert (tmp_path / "letters.partial" / "to_anna.txt").read_text() == "dear Anna"
    assert find_labels(run_for(dataset), tmp_path / "nothing") is None


def test_a_labelling_killed_before_its_first_episode(dataset, tmp_path):
    (tmp_path / "companion.partial" / "meta").mkdir(parents=True)
    (tmp_path / "companion.partial" / "meta" / "info.json").write_text("{}")
    write(dataset, run_for(dataset), tmp_path / "companion")
    assert_all_there(DepthLabels.open(tmp_path / "companion", dataset), dataset, run_for(dataset))


def test_two_writers_at_once(dataset, tmp_path):
    with open_label_writer(dataset, run_for(dataset), tmp_path / "companion"):
        with pytest.raises(ValueError, match="Another process is writing"):
            write(dataset, run_for(dataset), tmp_path / "companion")
        write(dataset, run_for(dataset, shard=(0, 2)), tmp_path / "companion")


def test_labels_of_another_dataset(companion, tmp_path, schema, make_episode, dataset):
    with DatasetWriter(tmp_path / "other", schema) as writer:
        for number in range(4):
            writer.add_episode(make_episode(number, 5))
    with pytest.raises(ValueError, match=r"of another dataset.*5 episodes and 30 frames.*it has 4 and 20"):
        DepthLabels.open(companion, LeRobotDataset(tmp_path / "other"))
    grown = shutil.copytree(dataset.root, tmp_path / "grown")
    with DatasetWriter.resume(grown) as writer:
        writer.add_episode(make_episode(9))
    with pytest.raises(ValueError, match="has changed since"):
        DepthLabels.open(companion, LeRobotDataset(grown))


def test_a_camera_without_labels(dataset, labelled_once):
    with pytest.raises(ValueError, match=r"labels 'front_left'\. Did you mean 'front'"):
        DepthLabels.open(labelled_once, dataset).codes("front_left")


def change_column(root, name, change):
    """Let `change` work on one column of a companion dataset, on disk."""
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    values = np.array(table[name].to_pylist())
    change(values)
    width = values.shape[1]
    changed = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, changed), path)


def set_to(value):
    def change(values):
        values[11, 4] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("depth.front.codes", NUM_CODES, "codes outside 0 to 19 in 1 frames, the first of them frame 11"),
        ("depth.wrist.buffer_codes", -1, "wrist.buffer_codes has codes outside 0 to 19"),
        ("observation.state", None, "its states are others"),
    ],
)
def test_damaged_columns(companion, dataset, name, value, words):
    change = set_to(value) if value is not None else (lambda values: values.__iadd__(1e-3))
    change_column(companion, name, change)
    with pytest.raises(ValueError, match=words):
        DepthLabels.open(companion, dataset)


def test_a_buffer_that_does_not_follow(companion, dataset):
    def flip(values):
        values[11, 4] = (values[11, 4] + 1) % NUM_CODES

    change_column(companion, "depth.wrist.buffer_codes", flip)
    words = "buffer codes of camera 'wrist' in episode 2 do not follow from its codes and updates"
    with pytest.raises(ValueError, match=words):
        DepthLabels.open(companion, dataset)


def test_a_first_frame_that_is_not_new(companion, dataset):
    def keep(values):
        values[9, 4] = False

    change_column(companion, "depth.front.updated", keep)
    with pytest.raises(ValueError, match="camera 'front' in episode 2 do not follow"):
        DepthLabels.open(companion, dataset)


def test_other_lengths(dataset, tmp_path, schema, make_episode):
    with DatasetWriter(tmp_path / "other", schema) as writer:
        for number, length in enumerate((4, 5, 7, 6, 8)):
            writer.add_episode(make_episode(number, length))
    other = LeRobotDataset(tmp_path / "other")
    write(other, run_for(other), tmp_path / "others")
    document = json.loads((tmp_path / "others" / RUN_PATH).read_text()) | {"dataset": fingerprint(dataset.root)}
    (tmp_path / "others" / RUN_PATH).write_text(json.dumps(document))
    with pytest.raises(ValueError, match="episode 2 is 7 frames long in place of 6"):
        DepthLabels.open(tmp_path / "others", dataset)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cameras": ["front", "back"]}, r"lacks the columns \['depth.back"),
        ({"side": 4}, r"depth.front.codes is int64 \[30, 9\], not int64 \[frames, 16\]"),
        ({"num_codes": 0}, "must be positive"),
        ({"num_codes": "many"}, "'num_codes' must be of type int"),
        ({"codec": 7}, "'codec' must be of type str"),
        ({"shard": [0]}, "'shard' must be two numbers"),
        ({"shard": [1, 2]}, "needs each of the shards 0/2 to 1/2 once, it has 1/2"),
        ({"cameras": []}, "at least one camera"),
        ({"scale": None}, "'scale' must be of type dict"),
    ],
)
def test_malformed_descriptions(companion, dataset, change, words):
    document = json.loads((companion / RUN_PATH).read_text())
    (companion / RUN_PATH).write_text(json.dumps(document | change))
    with pytest.raises(ValueError, match=words):
        DepthLabels.open(companion, dataset)


@pytest.mark.parametrize("name", ["dataset", "num_frames", "cameras", "unit", "shard"])
def test_descriptions_that_lack_something(companion, dataset, name):
    document = json.loads((companion / RUN_PATH).read_text())
    del document[name]
    (companion / RUN_PATH).write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"lacks the field '{name}'"):
        DepthLabels.open(companion, dataset)


LABELLER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_depth_labels import made_up, run_for
from molmoact2.data import LeRobotDataset
from molmoact2.data.depth_writing import open_label_writer

dataset = LeRobotDataset(sys.argv[1])
run = run_for(dataset)
with open_label_writer(dataset, run, Path(sys.argv[2])) as writer:
    print("ready", flush=True)
    for index in writer.todo:
        writer.add(made_up(run, dataset, index))
        print(index, flush=True)
"""


def test_killed_by_the_system(tmp_path, dataset):
    folder, done, kills = tmp_path / "companion", 0, 0
    while not folder.exists():
        command = [sys.executable, "-c", LABELLER, str(dataset.root), str(folder), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            said = [process.stdout.readline() for _ in range(1 + kills % 2)]
            time.sleep(0.003 * (kills % 3))
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read().splitlines()
        numbers = [int(line) for line in said if line.strip()]
        assert numbers == list(range(done, done + len(numbers))) or numbers == list(range(done + 1, numbers[-1] + 1))
        done, kills = max([done, *(number + 1 for number in numbers)]), kills + 1
        assert kills < 20
    assert kills > 1
    assert_all_there(DepthLabels.open(folder, dataset), dataset, run_for(dataset))
