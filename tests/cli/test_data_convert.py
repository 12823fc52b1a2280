"""`molmoact2 data convert`: the commands of the documentation, and mistakes answered."""

import sys
from pathlib import Path

import numpy as np
import pytest

from molmoact2.cli.main import main
from molmoact2.data import DatasetSchema, Episode, open_dataset
from molmoact2.data.tfrecord import masked_crc
from molmoact2.embodiments import SO101_TABLETOP

sys.path.append(str(Path(__file__).parents[1] / "data"))
from old_datasets import write_old
from rlds_folders import make_episode, write_rlds


@pytest.fixture
def old_root(tmp_path):
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(16, 24))
    rows = np.zeros((4, 6), np.float32)
    images = dict.fromkeys(schema.image_sizes, np.zeros((4, 16, 24, 3), np.uint8))
    episode = Episode(images=images, state=rows, action=rows, task="wave")
    return write_old(tmp_path / "old", schema, [episode, episode])


def test_lerobot(old_root, tmp_path, capsys):
    main(["data", "convert", str(old_root), str(tmp_path / "new")])
    said = " ".join(capsys.readouterr().out.split())
    assert "Converted from LeRobot v2.1: 2 episodes, 8 frames. Pictures: unchanged" in said
    assert len(open_dataset(tmp_path / "new")) == 8


def test_lerobot_with_missing_video(old_root, tmp_path, capsys):
    next(old_root.rglob("episode_000000.mp4")).unlink()
    with pytest.raises(SystemExit) as stop:
        main(["data", "convert", str(old_root), str(tmp_path / "new")])
    assert stop.value.code == 2
    assert "--only-with-video" in capsys.readouterr().err
    main(["data", "convert", str(old_root), str(tmp_path / "new"), "--only-with-video"])
    assert "Left out, because their video is missing: 1 episodes." in " ".join(capsys.readouterr().out.split())
    assert len(open_dataset(tmp_path / "new")) == 4


def test_rlds_with_a_mapping(tmp_path, capsys):
    folder = write_rlds(tmp_path / "toy", {"train": [[make_episode(1, 3)]], "val": [[make_episode(2, 4)]]}, masked_crc)
    mapping = tmp_path / "toy.toml"
    mapping.write_text('fps = 10\nrobot_type = "toy"\n[cameras]\nblack = "observation/image_1"')
    with pytest.raises(SystemExit):
        main(["data", "convert", str(folder), str(tmp_path / "new")])
    assert "What the features of 'toy' mean is not known" in capsys.readouterr().err
    main(["data", "convert", str(folder), str(tmp_path / "new"), "--mapping", str(mapping), "--splits", "val"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Converted from RLDS toy: 1 episodes, 4 frames. Pictures: encoded anew as H.264." in said
    assert "Camera black is black in 1 of 1 episodes." in said
