"""Recordings: what is written, what is made up for, and that killing one loses nothing that was finished."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from worlds import LineExpert, LineWorld, Nudge

from molmoact2.data import LeRobotDataset
from molmoact2.envs.labels import PIXELS, PIXELS_INSIDE, POINTS, POINTS_PRESENT, THINGS
from molmoact2.evaluation.ledger import read_records
from molmoact2.evaluation.recording import (
    LEDGER_DIRECTORY,
    Recording,
    is_perturbed,
    record_dataset,
    written_attempts,
)

RECORDING = Recording(
    open_environment=LineWorld,
    open_expert=LineExpert,
    open_perturbation=Nudge,
    tasks=("left", "right"),
    num_episodes=4,
    perturbed_fraction=0.5,
)
PROTOCOL = {"world": "line"}


def record(recording, output, *, stop_after=None, num_workers=1):
    run = record_dataset(recording, output, PROTOCOL, num_workers=num_workers)
    for number, attempts in enumerate(run):
        if number == stop_after:
            run.close()
            return attempts
    return attempts


def content(dataset):
    """Everything that a learner sees of a dataset."""
    frames = [dataset.frame(index) for index in range(len(dataset))]
    return [(f.task, f.episode_index, f.state.tolist(), f.action.tolist(), f.images["front"].tobytes()) for f in frames]


def test_failures_are_counted_and_made_up_for(tmp_path):
    attempts = record(RECORDING, tmp_path / "data")
    assert [(a["task"], a["seed"], a["success"]) for a in attempts] == [
        (task, seed, seed % 5 != 0) for seed in range(5) for task in ("left", "right")
    ]
    dataset = LeRobotDataset(tmp_path / "data")
    assert [record.tasks for record in dataset.episodes] == [("go left",), ("go right",)] * 4
    assert [record.length for record in dataset.episodes] == [a["steps"] for a in attempts if a["success"]]


def test_the_wanted_action_is_recorded_and_another_executed(tmp_path):
    recording = replace(RECORDING, tasks=("right",), num_episodes=1)
    record(replace(recording, perturbed_fraction=1.0), tmp_path / "nudged")
    record(replace(recording, perturbed_fraction=0.0), tmp_path / "clean")
    nudged, clean = LeRobotDataset(tmp_path / "nudged"), LeRobotDataset(tmp_path / "clean")
    np.testing.assert_array_equal(nudged.frame(0).action, clean.frame(0).action)
    for dataset, size in ((nudged, 0.006), (clean, 0.0)):  # the first episode is that of seed 1
        first, second = dataset.frame(0), dataset.frame(1)
        walked = np.clip(first.action - size - first.state, -0.1, 0.1)
        np.testing.assert_allclose(second.state, first.state + walked, atol=1e-6)


def test_the_truth_is_recorded_beside_the_pictures(tmp_path):
    record(RECORDING, tmp_path / "data")
    frame = LeRobotDataset(tmp_path / "data").frame(3)
    gripper = THINGS.index("gripper")
    assert frame.extras[POINTS_PRESENT].tolist() == [name == "gripper" for name in THINGS]
    points = frame.extras[POINTS].reshape(len(THINGS), 3)
    np.testing.assert_allclose(points[gripper], frame.state[:3])
    assert not points[:gripper].any()
    inside = frame.extras[PIXELS_INSIDE].reshape(2, len(THINGS))
    assert inside[:, gripper].tolist() == [True, False]
    pixels = frame.extras[PIXELS].reshape(2, len(THINGS), 2)
    assert pixels[0, gripper].tolist() == [0.25, 0.5]
    assert not pixels[1].any()


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    record(RECORDING, tmp_path / "whole")
    record(RECORDING, tmp_path / "parts", stop_after=5)
    assert len(LeRobotDataset(tmp_path / "parts").episodes) == 3
    record(RECORDING, tmp_path / "parts")
    assert content(LeRobotDataset(tmp_path / "parts")) == content(LeRobotDataset(tmp_path / "whole"))


def test_an_attempt_that_was_noted_but_not_written_is_repeated(tmp_path):
    record(RECORDING, tmp_path / "data", stop_after=5)
    ledger = tmp_path / "data" / LEDGER_DIRECTORY / "episodes.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join([*lines, lines[-1].replace('"seed": 2', '"seed": 3')]) + "\n")
    attempts = record(RECORDING, tmp_path / "data")
    assert [(a["task"], a["seed"]) for a in attempts] == [(t, s) for s in range(5) for t in ("left", "right")]


def test_attempts_beyond_the_written_episodes_are_dropped():
    results = [True, False, True, False, True]
    records = [{"success": success, "number": number} for number, success in enumerate(results)]
    assert [len(written_attempts(records, written)) for written in range(4)] == [0, 2, 4, 5]


def test_workers_change_nothing(tmp_path):
    record(RECORDING, tmp_path / "one")
    record(RECORDING, tmp_path / "two", num_workers=2)
    assert content(LeRobotDataset(tmp_path / "two")) == content(LeRobotDataset(tmp_path / "one"))


def test_a_recording_can_be_extended(tmp_path):
    record(replace(RECORDING, num_episodes=2), tmp_path / "data")
    record(RECORDING, tmp_path / "data")
    assert len(LeRobotDataset(tmp_path / "data").episodes) == 8


def test_the_seed_decides_which_episodes_are_perturbed():
    share = np.mean([is_perturbed(seed, 0.3) for seed in range(2000)])
    assert 0.26 < share < 0.34
    assert not any(is_perturbed(seed, 0.0) for seed in range(50))
    assert all(is_perturbed(seed, 1.0) for seed in range(50))


class BrokenExpert(LineExpert):
    def act(self, observation, /):
        chunk = super().act(observation)
        return replace(chunk, actions=observation.state[None].astype(np.float32))


def test_an_expert_that_cannot_do_a_task_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"cannot do 'left', 'right': after 18 seeds"):
        record(replace(RECORDING, open_expert=BrokenExpert), tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_episodes": 0}, "at least 1"), ({"tasks": ()}, "one task"), ({"perturbed_fraction": 1.5}, "0 to 1")],
)
def test_an_impossible_recording_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RECORDING, **change)


RECORD_COMMAND = (sys.executable, "-m", "molmoact2.cli.main", "record", "--image-size", "32")


def test_the_simulated_arm_is_recorded(tmp_path):
    pytest.importorskip("molmoact2.envs.headless", exc_type=ImportError)
    flags = ("--output", str(tmp_path / "data"), "--episodes", "1", "--tasks", "pick", "push", "--workers", "1")
    done = subprocess.run([*RECORD_COMMAND, *flags], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Not written, because the expert failed: 0" in done.stdout
    dataset = LeRobotDataset(tmp_path / "data")
    assert len(dataset.episodes) == 2
    frame = dataset.frame(0)
    assert frame.images["wrist"].shape == (32, 32, 3)
    assert frame.task.startswith("pick up the")
    assert frame.extras[POINTS_PRESENT].sum() >= 3


def test_a_killed_recording_is_a_valid_dataset_and_goes_on(tmp_path):
    pytest.importorskip("molmoact2.envs.headless", exc_type=ImportError)
    output = tmp_path / "data"
    flags = ("--output", str(output), "--tasks", "push", "--workers", "2", "--episodes")
    ledger = output / LEDGER_DIRECTORY / "episodes.jsonl"
    running = subprocess.Popen([*RECORD_COMMAND, *flags, "1000"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(read_records(ledger)) < 3 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert running.returncode == -signal.SIGKILL
    noted, written = len(read_records(ledger)), len(LeRobotDataset(output).episodes)
    assert written >= 3 - 1
    assert written <= noted
    done = subprocess.run([*RECORD_COMMAND, *flags, str(noted + 1)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    dataset = LeRobotDataset(output)
    assert len(dataset.episodes) == noted + 1
    assert dataset.episode(noted).action.shape[1] == 6
