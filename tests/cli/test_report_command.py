"""`molmoact2 report`: which episodes are on which side, and a report from the command line."""

import json

import numpy as np
import pytest

from molmoact2.cli.report import Report, choose_episodes, parse_episodes
from molmoact2.data import DatasetSchema, DatasetWriter, Episode
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.testing import tiny_checkpoint


@pytest.mark.parametrize(
    ("words", "episodes"), [((), []), (("7",), [7]), (("2:5", "9"), [2, 3, 4, 9]), (("3:3",), []), (("5:2",), [])]
)
def test_episodes_are_numbers_and_ranges(words, episodes):
    assert parse_episodes(words) == episodes


@pytest.mark.parametrize("word", ["", "x", "1:2:3", "-1", "1:", ":4", "1.5", "1-4"])
def test_anything_else_is_refused(word):
    with pytest.raises(ValueError, match="numbers such as 7"):
        parse_episodes((word,))


def test_the_last_tenth_is_held_out_unless_said_otherwise():
    assert choose_episodes((), 25, 25, is_apart=False) == ([23, 24], list(range(23)))
    assert choose_episodes((), 2, 2, is_apart=False) == ([1], [0])
    assert choose_episodes(("0:2",), 4, 4, is_apart=False) == ([0, 1], [2, 3])
    assert choose_episodes((), 2, 3, is_apart=True) == ([0, 1], [0, 1, 2])
    assert choose_episodes(("1",), 2, 3, is_apart=True) == ([1], [0, 1, 2])


@pytest.mark.parametrize(("words", "count"), [((), 1), (("0:3",), 3), (("2:2",), 3)])
def test_both_sides_need_episodes(words, count):
    with pytest.raises(ValueError, match="needs episodes that were trained on"):
        choose_episodes(words, count, count, is_apart=False)


def write_dataset(root, num_episodes, seed):
    rng = np.random.default_rng(seed)
    with DatasetWriter(root, DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(32, 32))) as writer:
        for _ in range(num_episodes):
            rows = rng.uniform(0, 30, size=(5, 6)).astype(np.float32)
            images = {camera: rng.integers(0, 256, (5, 32, 32, 3), np.uint8) for camera in SO101_TABLETOP.cameras}
            writer.add_episode(Episode(images=images, state=rows, action=rows + 1, task="wave"))


def test_a_report_from_the_command_line(tmp_path, capsys):
    checkpoint = str(tiny_checkpoint(tmp_path / "checkpoint"))
    write_dataset(tmp_path / "seen", 3, 0)
    write_dataset(tmp_path / "unseen", 1, 1)
    Report(checkpoint=checkpoint, dataset=tmp_path / "seen", frames=3, output=tmp_path / "a.html").run()
    printed = " ".join(capsys.readouterr().out.split())
    assert "skill:" in printed
    assert "all episodes have the same instruction" in printed
    assert json.loads((tmp_path / "a.json").read_text())["method"]["held-out data"].startswith("3 frames of 1 episodes")
    apart = Report(
        checkpoint=checkpoint,
        dataset=tmp_path / "unseen",
        train_dataset=tmp_path / "seen",
        frames=2,
        output=tmp_path / "b.html",
    )
    apart.run()
    method = json.loads((tmp_path / "b.json").read_text())["method"]
    assert method["training data"] == f"3 episodes of {tmp_path / 'seen'}"
    assert method["held-out data"] == f"2 frames of 1 episodes of {tmp_path / 'unseen'}"
