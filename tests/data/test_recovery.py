"""A recording may be killed at any moment: the finished episodes are there, and it can go on.

Twice over: with the state of the disk before every single rename and deletion, and with a real process and SIGKILL.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from molmoact2.data import DatasetWriter, LeRobotDataset

RECORDER = """
import sys
from pathlib import Path
import numpy as np
from molmoact2.data import DatasetSchema, DatasetWriter, Episode

root = Path(sys.argv[1])
schema = DatasetSchema(
    fps=10, robot_type="toy", state_names=("a",), action_names=("a",), image_sizes={"eye": (16, 16), "ear": (16, 16)}
)
writer = DatasetWriter.resume(root) if (root / "meta/info.json").exists() else DatasetWriter(root, schema)
print("ready", flush=True)
while True:
    number = writer.num_episodes
    images = np.full((3, 16, 16, 3), 20 + number % 200, np.uint8)
    values = np.full((3, 1), number, np.float32)
    task = f"task {number % 3}"
    writer.add_episode(Episode(images={"eye": images, "ear": images}, state=values, action=values, task=task))
    print(number, flush=True)
    if number % 3 == 2:
        writer.finalize()
"""


@contextmanager
def copied_before_every_step(root: Path, copies: Path) -> Iterator[list[Path]]:
    """Copy `root` into the folder `copies` before each rename and deletion; yields the growing list of copies."""
    made: list[Path] = []

    def copying_first(step):
        def wrapped(path, *args, **kwargs):
            if Path(path).exists():
                made.append(copies / f"{len(made)}")
                shutil.copytree(root, made[-1])
            return step(path, *args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", copying_first(os.replace))
        patch.setattr(Path, "unlink", copying_first(Path.unlink))
        yield made


def assert_holds(root: Path, expected: list, at_least: int) -> int:
    """Open a dataset and compare it with the first of the expected episodes; returns how many there are."""
    dataset = LeRobotDataset(root)
    count = len(dataset.episodes)
    assert at_least <= count <= len(expected)
    for number, episode in enumerate(expected[:count]):
        found = dataset.episode(number)
        np.testing.assert_array_equal(found.action, episode.action)
        assert found.task == episode.task
        for camera, images in episode.images.items():
            assert np.abs(found.images[camera].astype(int) - images).mean() < 3
    if count:
        assert dataset.stats["index"]["count"].tolist() == [len(dataset)]
        assert dataset.stats["action"]["max"].tolist() == dataset.actions.max(axis=0).astype(float).tolist()
    return count


def test_killed_before_any_step(tmp_path, schema, make_episode):
    expected = [make_episode(number, 3) for number in range(4)]
    writer = DatasetWriter(tmp_path / "dataset", schema)
    finished_at = []
    with copied_before_every_step(writer.root, tmp_path / "copies") as copies:
        for number in range(3):
            writer.add_episode(expected[number])
            finished_at.append(len(copies))
            if number > 0:
                writer.finalize()
    assert len(copies) > 30
    for step, copy in enumerate(copies):
        finished = sum(step >= at for at in finished_at)
        count = assert_holds(copy, expected, at_least=finished)
        with DatasetWriter.resume(copy) as resumed:
            assert resumed.num_episodes == count
            resumed.add_episode(expected[count])
        assert_holds(copy, expected, at_least=count + 1)
        assert len([path for path in copy.rglob("*") if path.is_file()]) == 7
        shutil.rmtree(copy)


def test_killed_by_the_system(tmp_path):
    rng = random.Random(0)
    root = tmp_path / "dataset"
    finished = 0
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", RECORDER, str(root)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            told = [int(process.stdout.readline())]
            time.sleep(rng.uniform(0.0, 0.35))
            process.send_signal(signal.SIGKILL)
            told += [int(line) for line in process.stdout.read().split()]
        dataset = LeRobotDataset(root)
        assert len(dataset.episodes) >= max([finished, *(number + 1 for number in told)])
        finished = len(dataset.episodes)
        for number in range(finished):
            episode = dataset.episode(number)
            assert (episode.action == number).all()
            assert episode.task == f"task {number % 3}"
            assert all(abs(int(i.mean()) - 20 - number % 200) <= 2 for i in episode.images.values())
        assert dataset.stats["index"]["count"].tolist() == [len(dataset)]
    assert finished >= 5


def test_an_exception_leaves_the_finished_episodes(tmp_path, schema, make_episode):
    def record_and_stop():
        with DatasetWriter(tmp_path, schema) as writer:
            writer.add_episode(make_episode(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_and_stop()
    assert_holds(tmp_path, [make_episode(0)], at_least=1)


def test_a_failed_episode_does_not_spoil_the_next(tmp_path, schema, make_episode, monkeypatch):
    writer = DatasetWriter(tmp_path, schema)
    writer.add_episode(make_episode(0))
    with monkeypatch.context() as patch:
        patch.setattr("molmoact2.data.writer.write_episodes", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            writer.add_episode(make_episode(1))
    writer.add_episode(make_episode(2))
    writer.finalize()
    assert_holds(tmp_path, [make_episode(0), make_episode(2)], at_least=2)


def test_only_our_recordings_are_continued(dataset_root):
    path = dataset_root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert len(LeRobotDataset(dataset_root)) == 30
    with pytest.raises(ValueError, match=r"not recorded by this writer.*Start a new dataset"):
        DatasetWriter.resume(dataset_root)
