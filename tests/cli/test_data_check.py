"""`molmoact2 data check`: what it prints and writes, and its exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from molmoact2.cli.main import main
from molmoact2.data import DatasetSchema, DatasetWriter, Episode


def record(root: Path, *, black: bool) -> Path:
    schema = DatasetSchema(
        fps=10, robot_type="toy", state_names=("a",), action_names=("a",), image_sizes={"eye": (16, 16)}
    )
    rng = np.random.default_rng(0)
    with DatasetWriter(root, schema) as writer:
        for number in range(3):
            images = rng.integers(0, 255, (15, 16, 16, 3)).astype(np.uint8) * np.uint8(not black)
            path = np.linspace(number, number + rng.uniform(1, 5), 16, dtype=np.float32)[:, None]
            writer.add_episode(Episode(images={"eye": images}, state=path[:-1], action=path[1:], task="move <it>"))
    return root


def test_errors_exit_with_1_and_are_explained(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(record(tmp_path / "dark", black=True)), "--json", str(tmp_path / "report.json")])
    assert stop.value.code == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Black or blank images blank_camera" in said
    assert "18 of 18 sampled images are black" in said
    assert "Grade D" in said
    assert "Not checked, because the robot is unknown: name it with --embodiment: wrong_width" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["grade"] == "D"
    (blank,) = [finding for finding in report["findings"] if finding["rule"] == "blank_camera"]
    assert len(blank["places"]) == 18


def test_without_errors_it_ends_well(tmp_path, capsys):
    root = record(tmp_path / "fine", black=False)
    main(["data", "check", str(root), "--no-images", "--html", str(tmp_path / "page.html")])
    assert "Grade B" in capsys.readouterr().out
    assert "move &lt;it&gt;" in (tmp_path / "page.html").read_text()


def test_what_is_no_dataset_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(tmp_path)])
    assert stop.value.code == 1
    assert "Grade F" in capsys.readouterr().out


def test_an_unknown_robot_is_the_users_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "check", str(tmp_path), "--embodiment", "so102"])
    assert stop.value.code == 2
    assert "Unknown embodiment" in capsys.readouterr().err
