"""`molmoact2 run`: what it refuses before anything moves, and a short run of a robot that pretends."""

import subprocess
import sys
from pathlib import Path

import pytest

from molmoact2.cli.main import main
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.writer import DatasetWriter
from molmoact2.robots.catalog import Entry
from molmoact2.testing import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    tiny_checkpoint(folder)
    return str(folder)


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """What is said about a mistake."""
    with pytest.raises(SystemExit) as stop:
        main(["run", *flags])
    assert stop.value.code == 2
    return capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (("--robot", "so10", "--policy", "x"), "Did you mean 'so101'"),
        (("--robot", "dry-run"), "either --server URL or --policy CHECKPOINT"),
        (("--robot", "dry-run", "--server", "ws://localhost:1", "--policy", "x"), "either --server URL or --policy"),
        (("--robot", "dry-run", "--server", "http://localhost:1"), "like ws://127.0.0.1:8000"),
        pytest.param(
            ("--robot", "dry-run", "--server", "ws://127.0.0.1:9"),
            "The server at ws://127.0.0.1:9 does not answer",
            marks=pytest.mark.slow,
            id="it is waited for",
        ),
        (("--robot", "so101", "--policy", "nano-so101"), "lacks calibration, port"),
        (("--robot", "dry-run", "--policy", "nano-so101", "--execution", "blend", "--every", "3"), "--every"),
        (("--robot", "dry-run", "--policy", "nano-so101", "--episodes", "0"), "--episodes"),
    ],
)
def test_mistakes_are_answered_with_advice(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], advice: str):
    assert advice in refused(capsys, "--instruction", "wave", *flags)


def test_a_robot_that_is_not_simulated_needs_an_instruction(capsys: pytest.CaptureFixture[str], checkpoint: str):
    assert "Say what to do" in refused(capsys, "--robot", "dry-run", "--policy", checkpoint)


def test_a_dataset_of_something_else_is_refused(capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path):
    (tmp_path / "note.txt").write_text("mine")
    flags = ("--robot", "dry-run", "--policy", checkpoint, "--instruction", "wave", "--record", str(tmp_path))
    assert "is not empty" in refused(capsys, *flags)


def test_runs_and_records(capsys: pytest.CaptureFixture[str], checkpoint: str, tmp_path: Path):
    settings = tmp_path / "robot.toml"
    settings.write_text('image_width = 32\nimage_height = 24\nembodiment = "so101_tabletop"\n')
    flags = ["--robot", "dry-run", "--settings", str(settings), "--policy", checkpoint, "--instruction", "wave"]
    main(["run", *flags, "--seconds", "1", "--record", str(tmp_path / "data"), "--keep-all"])
    shown = capsys.readouterr().out
    assert "0 of 1" in shown
    assert "out of time" in shown
    assert "per second" in shown
    assert LeRobotDataset(tmp_path / "data").episode(0).task == "wave"


def test_real_robots_are_examined_and_begin_in_shadow(
    capsys: pytest.CaptureFixture[str], checkpoint: str, monkeypatch: pytest.MonkeyPatch
):
    """The robot that pretends, taken for a real one: the doctor finds that its pictures are not of this checkpoint."""
    pretended = Entry(
        summary="a pretended arm",
        module="molmoact2.robots.dry_run",
        settings="DryRunSettings",
        opener="open_dry_run",
        is_real=True,
    )
    monkeypatch.setitem(
        vars(__import__("molmoact2.robots.catalog", fromlist=["ROBOTS"]))["ROBOTS"], "dry-run", pretended
    )
    monkeypatch.setattr("molmoact2.robots.dry_run.DryRun.command", lambda *_: pytest.fail("it was commanded"))
    flags = ["--robot", "dry-run", "--policy", checkpoint, "--instruction", "wave", "--seconds", "0.5"]
    main(["run", *flags])
    assert "Cameras" in capsys.readouterr().out, "the doctor's report"


@pytest.mark.slow
def test_a_simulated_episode_ends_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    flags = [
        "--robot",
        "so101-sim",
        "--policy",
        "nano-so101",
        "--task",
        "pick",
        "--record",
        str(tmp_path),
        "--keep-all",
    ]
    main(["run", *flags])
    assert "1, " in capsys.readouterr().out
    episode = LeRobotDataset(tmp_path).episode(0)
    assert "pick up the" in episode.task
    assert episode.images.keys() == {"front", "wrist"}


@pytest.mark.slow
def test_a_recording_that_is_killed_keeps_its_whole_episodes(checkpoint: str, tmp_path: Path):
    settings, root = tmp_path / "robot.toml", tmp_path / "data"
    settings.write_text('image_width = 32\nimage_height = 24\nembodiment = "so101_tabletop"\n')
    flags = ["--robot", "dry-run", "--settings", str(settings), "--policy", checkpoint, "--instruction", "wave"]
    flags += ["--seconds", "1", "--episodes", "99", "--record", str(root), "--keep-all"]
    code = f"from molmoact2.cli.main import main; main(['run', *{flags!r}])"
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ended = (line for line in process.stdout if "out of time" in line)
        assert all("wave" in next(ended) for _ in range(2))
        process.kill()
    with DatasetWriter.resume(root) as writer:
        assert writer.num_episodes in (2, 3)
    assert len(LeRobotDataset(root).episode(1).action) > 5
    assert {path.name for path in root.iterdir()} == {"data", "meta", "videos"}
