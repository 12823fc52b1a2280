"""The SO-101 adapter and LeRobot's own code, against servos on a pseudo-terminal; for whoever has lerobot installed."""

import json
from pathlib import Path

import numpy as np
import pytest
from servo_bus import GOAL, LOWEST, PRESENT, TORQUE, ServoBus

from molmoact2.control.robot import RobotError
from molmoact2.embodiments import SO_JOINTS
from molmoact2.robots.calibration import OLD_SO_FRAME
from molmoact2.robots.so101 import So101, So101Settings, open_so101

pytest.importorskip("lerobot.robots.so_follower", reason="lerobot is not installed")

COUNTS = np.arange(2050, 2301, 50)
EXPECTED = OLD_SO_FRAME.to_model([*(COUNTS[:5] - 2000) * 360 / 4095, 60.0])


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServoBus:
    """Servos, and a calibration file that agrees with them."""
    monkeypatch.setattr("lerobot.robots.robot.HF_LEROBOT_CALIBRATION", tmp_path)
    values = {"drive_mode": 0, "homing_offset": 0, "range_min": 500, "range_max": 3500}
    calibration = {name: {"id": number, **values} for number, name in enumerate(SO_JOINTS, start=1)}
    (tmp_path / "robots" / "so_follower").mkdir(parents=True)
    (tmp_path / "robots" / "so_follower" / "follower.json").write_text(json.dumps(calibration))
    return ServoBus()


@pytest.fixture
def robot(bus: ServoBus) -> So101:
    return open_so101(So101Settings(port=bus.port, calibration="old"))


def test_opening_and_reading_write_nothing(bus: ServoBus, robot: So101):
    reading = robot.read()
    assert not bus.log
    assert reading.state == pytest.approx(EXPECTED.astype(np.float32), abs=1e-3)
    assert reading.effort == pytest.approx([-0.12] * 6)
    assert reading.current_a == pytest.approx([0.26] * 6)
    assert reading.temperature_c == pytest.approx([36, 37, 38, 39, 40, 41])


def test_first_command_switches_on_where_the_arm_is(bus: ServoBus, robot: So101):
    robot.command((EXPECTED + 9 * (np.arange(6) == 3)).astype(np.float32))
    goals = [int.from_bytes(data, "little") for _, address, data in bus.log if address == GOAL]
    assert goals[:6] == pytest.approx(COUNTS, abs=1)
    assert [address for _, address, _ in bus.log].index(GOAL) < [address for _, address, _ in bus.log].index(TORQUE)
    assert [bus.memory[servo][TORQUE] for servo in bus.memory] == [1] * 6
    assert bus.word(4, GOAL) == pytest.approx(2200 + 9 * 4095 / 360, abs=1)


def test_silence_is_an_error_and_passes(bus: ServoBus, robot: So101):
    robot.hold()
    bus.is_silent = True
    with pytest.raises(RobotError, match="no status packet"):
        robot.read()
    bus.is_silent = False
    robot.read()
    robot.close()
    assert [bus.memory[servo][TORQUE] for servo in bus.memory] == [1] * 6, "it holds its pose"
    with pytest.raises(RobotError, match="not connected"):
        robot.read()


def test_unplugged_port_is_an_error_and_hold_does_not_fail(bus: ServoBus, robot: So101):
    robot.read()
    bus.unplug()
    with pytest.raises(RobotError):
        robot.read()
    robot.hold()


def test_arm_that_was_calibrated_anew_elsewhere(bus: ServoBus):
    bus.memory[3][LOWEST : LOWEST + 2] = (600).to_bytes(2, "little")
    with pytest.raises(ValueError, match="lerobot-calibrate"):
        open_so101(So101Settings(port=bus.port, calibration="new"))
    assert bus.word(1, PRESENT) == COUNTS[0]


def test_port_that_is_not_there(tmp_path: Path):
    with pytest.raises(RobotError, match="Connecting to the arm"):
        open_so101(So101Settings(port=str(tmp_path / "no port"), calibration="new"))
