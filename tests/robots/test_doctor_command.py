"""`molmoact2 doctor` from its flags to its exit code, with robots pretended, simulated and recorded."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tyro
from patients import CARD, PATIENT, VIEWS, view
from websockets.sync.server import ServerConnection, serve

from molmoact2.cli import doctor
from molmoact2.control.robot import RobotError
from molmoact2.data import DatasetSchema, DatasetWriter, Episode
from molmoact2.embodiments import SO_JOINTS
from molmoact2.robots.dry_run import DryRun
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Ask, Hello, Refusal, Welcome


def run(*flags: str | Path) -> int:
    """The exit code of the command."""
    try:
        tyro.cli(doctor.Doctor, args=[str(flag) for flag in flags]).run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def answer(ask: Ask) -> Answer | Refusal:
    """Stay where the arm is; a state of another width than six is refused."""
    state = np.asarray(ask.observation.state, np.float32)
    if len(state) != 6:
        return Refusal(id=ask.id, code="unfit", message=f"the state has {len(state)} numbers")
    rows = np.tile(state, (16, 1))
    return Answer(id=ask.id, observed_at=ask.observed_at, actions=rows, seed=0, timing={"total": 0.0})


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that knows one robot."""

    def talk(socket: ServerConnection) -> None:
        for data in socket:
            match decode(data, Limits()):  # type: ignore[arg-type]
                case Hello():
                    known = {"server": "small", "model": "tiny", "revision": None, "session": "s", "robots": (CARD,)}
                    welcome = Welcome(**known, modes=("continuous",), can_think=False, limits=Limits())
                    socket.send(encode(welcome))
                case Ask() as ask:
                    socket.send(encode(answer(ask)))

    with serve(talk, "127.0.0.1", 0, compression=None) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{running.socket.getsockname()[1]}"
        running.shutdown()


def recording(root: Path, states: np.ndarray, fps: int = 15) -> Path:
    """A dataset of one episode, with a camera beside the arm and one on its wrist."""
    sizes = dict.fromkeys(VIEWS, (240, 320))
    schema = DatasetSchema(
        fps=fps, robot_type="so101_tabletop", state_names=SO_JOINTS, action_names=SO_JOINTS, image_sizes=sizes
    )
    pictures = {
        name: np.stack([view(name, number=number, frames=frame + 1).picture for frame in range(len(states))])
        for number, name in enumerate(VIEWS, start=1)
    }
    with DatasetWriter(root, schema) as writer:
        values = states.astype(np.float32)
        writer.add_episode(Episode(images=pictures, state=values, action=values, task="wave"))
    return root


def test_simulated_arm_is_healthy_for_the_bundled_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheet, diagnosis = tmp_path / "new" / "sheet.png", tmp_path / "diagnosis.json"
    flags = (
        "--robot",
        "so101-sim",
        "--policy",
        "nano-so101",
        "--seconds",
        "0.5",
        "--picture",
        sheet,
        "--json",
        diagnosis,
    )
    assert run(*flags) == 0
    assert sheet.stat().st_size > 1000
    assert json.loads(diagnosis.read_text())["is_healthy"]
    assert "nothing speaks against moving" in capsys.readouterr().out


def test_pretended_arm_and_a_server(server: str, capsys: pytest.CaptureFixture[str]):
    assert run("--robot", "dry-run", "--server", server, "--seconds", "0.5") == 0
    out = capsys.readouterr().out
    assert f"tiny at {server}" in out
    assert "the policy answers what this robot sends" in out
    assert "an answer takes" in out


def test_another_robot_than_the_checkpoints_is_a_problem(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    settings = tmp_path / "robot.toml"
    settings.write_text('embodiment = "yam_dual_molmoact2"\n')
    assert run("--robot", "dry-run", "--settings", settings, "--server", server, "--seconds", "0.2") == 1
    out = capsys.readouterr().out
    assert "14 numbers, the checkpoint reads 6" in out
    assert "mend the problems" in out


def test_recording_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    healthy = recording(tmp_path / "healthy", PATIENT.states[:12])
    assert run("--dataset", healthy, "--policy", "nano-so101", "--reference", healthy) == 0
    assert "likeness to the recording 1.00" in capsys.readouterr().out.replace("\n", " ")
    ill = recording(tmp_path / "ill", PATIENT.states[:12] * (1, 1, 1, -1, 1, 1))
    assert run("--dataset", ill, "--policy", "nano-so101") == 1
    assert "send -wrist_flex" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ((), "either --server URL or --policy"),
        (("--policy", "nano-so101"), "either --robot NAME or --dataset"),
        (("--policy", "nano-so101", "--robot", "dry-run", "--dataset", "x"), "either --robot NAME or --dataset"),
        (("--policy", "nano-so101", "--server", "ws://127.0.0.1:1", "--robot", "dry-run"), "either --server"),
        (("--policy", "nano-so101", "--robot", "so100"), "Did you mean 'so101'"),
        (("--policy", "nano-so101", "--robot", "so101"), "needs settings"),
        (("--policy", "nano-so101", "--embodiment", "yam", "--robot", "dry-run"), "Known: so101_tabletop"),
        (("--policy", "no/such/folder/here", "--robot", "dry-run"), "neither a directory nor a hub id"),
    ],
)
def test_mistakes_are_answered_with_advice(flags: tuple[str, ...], advice: str):
    with pytest.raises(ValueError, match=advice):
        run(*flags)


def test_robot_that_does_not_answer_is_no_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(robot: DryRun) -> None:
        raise RobotError(f"no status packet from {robot.embodiment.tag}")

    monkeypatch.setattr(DryRun, "read", fail)
    with pytest.raises(ValueError, match=r"does not answer\. no status packet"):
        run("--robot", "dry-run", "--policy", "nano-so101", "--json", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.2)
    with pytest.raises(ValueError, match="does not answer"):
        run("--robot", "dry-run", "--server", "ws://127.0.0.1:9", "--seconds", "0.2")
