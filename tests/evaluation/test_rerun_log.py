"""Recordings for the Rerun viewer: whole files, of what was logged."""

import sys

import numpy as np
import pytest

from molmoact2.evaluation.rerun_log import open_rerun

IMAGE = np.full((12, 16, 3), 90, np.uint8)


def test_a_recording_appears_whole_when_it_is_finished(tmp_path):
    pytest.importorskip("rerun")
    path = tmp_path / "new" / "episode.rrd"
    with open_rerun(str(path), pictures=["cameras/front"], numbers=["state"]) as log:
        for frame in range(3):
            log.at(frame, frame / 15)
            log.image("cameras/front", IMAGE)
            log.cells("cameras/front/renewed", np.arange(16) < frame, IMAGE)
            log.depth("metres/true", np.ones((3, 4), np.float32))
            log.numbers("state", ["shoulder pan", "gripper"], np.array([frame, 2.0]))
        assert not path.exists()
    content = path.read_bytes()
    assert content[:4] == b"RRF2"
    assert [file.name for file in path.parent.iterdir()] == ["episode.rrd"]


def test_a_recording_that_failed_leaves_the_one_before(tmp_path):
    pytest.importorskip("rerun")
    path = tmp_path / "episode.rrd"
    path.write_bytes(b"before")

    def fail():
        with open_rerun(str(path), pictures=[], numbers=[]) as log:
            log.image("cameras/front", IMAGE)
            raise RuntimeError("the robot is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        fail()
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["episode.rrd"]


@pytest.mark.parametrize("target", ["episode.mp4", "episode", ""])
def test_other_targets_are_refused(target):
    with (
        pytest.raises(ValueError, match=r"ends in \.rrd, or opens a window"),
        open_rerun(target, pictures=[], numbers=[]),
    ):
        pass


def test_without_rerun_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with (
        pytest.raises(ValueError, match=r"pip install \"molmoact2\[view\]\""),
        open_rerun(str(tmp_path / "a.rrd"), pictures=[], numbers=[]),
    ):
        pass
    assert not list(tmp_path.iterdir())
