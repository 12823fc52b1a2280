"""`robot.toml`: read whole, or refused with advice."""

import json
from pathlib import Path

import pytest

from molmoact2.robots.dry_run import DryRunSettings
from molmoact2.robots.settings import read_settings, settings_of
from molmoact2.robots.so101 import So101Settings

TOML = """
port = "/dev/ttyACM0"
calibration = "old"
image_width = 640

[cameras]
front = "opencv:0"
wrist = "realsense:0123"
"""
NEEDED = {"port": "x", "calibration": "new"}


def test_toml_and_json_say_the_same(tmp_path: Path):
    (tmp_path / "robot.toml").write_text(TOML)
    settings = read_settings(tmp_path / "robot.toml", So101Settings)
    assert settings == So101Settings(
        port="/dev/ttyACM0", calibration="old", cameras={"front": "opencv:0", "wrist": "realsense:0123"}
    )
    document = {"port": "/dev/ttyACM0", "calibration": "old", "cameras": settings.cameras}
    (tmp_path / "robot.json").write_text(json.dumps(document))
    assert read_settings(tmp_path / "robot.json", So101Settings) == settings


def test_whole_numbers_are_numbers_and_lists_are_tuples():
    settings = settings_of({"lag_s": 1, "cameras": ["a", "b"]}, DryRunSettings, where="here")
    assert settings.lag_s == 1.0
    assert settings.cameras == ("a", "b")


@pytest.mark.parametrize(
    ("table", "advice"),
    [
        ({"port": "x"}, "lacks calibration"),
        ({}, "lacks calibration, port"),
        (NEEDED | {"prot": "y"}, "Did you mean 'port'"),
        (NEEDED | {"calibration": "newer"}, "'old' or 'new'"),
        (NEEDED | {"port": 3}, "should be a text"),
        (NEEDED | {"camera_fps": True}, "a whole number"),
        (NEEDED | {"camera_fps": 29.97}, "a whole number"),
        (NEEDED | {"cameras": ["opencv:0"]}, "a table"),
        (NEEDED | {"cameras": {"front": 0}}, "cameras.front should be a text"),
        ([], "a table of settings"),
        ("port", "a table of settings"),
    ],
)
def test_mistakes_are_named(table: object, advice: str):
    with pytest.raises(ValueError, match=advice):
        settings_of(table, So101Settings, where="robot.toml")


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("robot.toml", b"port = ", "not readable as toml"),
        ("robot.json", b"{", "not readable as json"),
        ("robot.toml", b"\xff\xfe", "not readable as toml"),
        ("robot.yaml", b"port: x", "a .toml or .json file"),
    ],
)
def test_files_that_are_not_settings(tmp_path: Path, name: str, content: bytes, advice: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=advice):
        read_settings(tmp_path / name, So101Settings)


@pytest.mark.parametrize(
    ("tag", "advice"),
    [
        ("yam_dual_molmoact2", "has 14 joints and this robot 6. Such are so101_tabletop, so100_so101_molmoact2"),
        ("so101_tablet", "Did you mean 'so101_tabletop'"),
    ],
)
def test_robot_is_run_as_an_embodiment_of_its_width(tag: str, advice: str):
    assert So101Settings(port="x", calibration="new", embodiment="so101_tabletop")
    with pytest.raises(ValueError, match=advice):
        settings_of(NEEDED | {"embodiment": tag}, So101Settings, where="robot.toml")
