"""`molmoact2 data info`: what is said about a dataset, for people and for programs."""

import json
from pathlib import Path

import numpy as np
import pytest

from molmoact2.cli.data.info import shortened
from molmoact2.cli.main import main
from molmoact2.data import DatasetSchema, DatasetWriter, Episode, open_dataset
from molmoact2.data.description import describe_dataset, fitting_embodiments
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP

G1 = Path(__file__).parents[3] / "shared" / "data" / "g1_bottle"


@pytest.fixture
def root(tmp_path):
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(16, 24))
    with DatasetWriter(tmp_path / "cubes", schema) as writer:
        for length, task in ((4, "wave"), (5, "pick up the cube"), (2, "wave")):
            images = dict.fromkeys(schema.image_sizes, np.zeros((length, 16, 24, 3), np.uint8))
            vectors = np.zeros((length, 6), np.float32)
            writer.add_episode(Episode(images=images, state=vectors, action=vectors, task=task))
    return tmp_path / "cubes"


def test_json_has_every_fact(root, capsys):
    main(["data", "info", str(root), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["version"], facts["robot"], facts["fits"]) == ("v3.0", "so101_tabletop", ["so101_tabletop"])
    assert (facts["fps"], facts["num_episodes"], facts["num_frames"]) == (15, 3, 11)
    assert facts["hours"] == 11 / 15 / 3600
    assert facts["tasks"] == {"wave": 6, "pick up the cube": 5}
    assert facts["features"]["action"] == {
        "dtype": "float32",
        "shape": [6],
        "names": list(SO101_TABLETOP.action_names),
    }
    assert facts["cameras"] == {"front": [16, 24], "wrist": [16, 24]}
    assert (facts["missing_videos"], facts["episodes_without_video"], facts["not_read"]) == ([], [], {})


def test_tables_say_it_in_words(root, capsys):
    next(root.rglob("*wrist/*/*.mp4")).unlink()
    main(["data", "info", str(root)])
    said = " ".join(capsys.readouterr().out.split())
    for words in ("LeRobot v3.0", "11 at 15 per second", "wave (6 frames)", "1 video files, of the episodes 0, 1, 2"):
        assert words in said
    assert "shoulder_pan" in said


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, ("so101_tabletop",)),
        ({"fps": 30}, ("so100_so101_molmoact2",)),
        ({"image_sizes": {"front": (16, 16)}}, ()),
        ({"state_names": ("a", "b")}, ()),
    ],
)
def test_which_embodiment_it_can_be(tmp_path, change, fits):
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(16, 24))
    DatasetWriter(tmp_path / "new", DatasetSchema(**{**vars(schema), **change}))
    dataset = open_dataset(tmp_path / "new")
    assert fitting_embodiments(dataset) == fits
    assert describe_dataset(dataset).num_frames == 0


def test_the_embodiment_that_it_names_comes_first(tmp_path):
    bc_z = EMBODIMENTS["google_robot_bc_z"]
    DatasetWriter(tmp_path / "new", DatasetSchema.for_embodiment(bc_z, image_size=(16, 24)))
    assert fitting_embodiments(open_dataset(tmp_path / "new"))[0] == bc_z.tag


def test_long_lists_are_shortened():
    assert shortened(list("abcdefg"), ", ") == "a, b, c, d, e, and 2 more"
    assert shortened(list("abcde"), ", ") == "a, b, c, d, e"


def test_what_is_no_dataset(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "info", str(tmp_path)])
    assert stop.value.code == 2
    assert "info.json: the file is missing" in capsys.readouterr().err


@pytest.mark.skipif(not G1.is_dir(), reason=f"the Unitree G1 demonstrations are not at {G1}")
def test_real_demonstrations(capsys):
    main(["data", "info", str(G1)])
    said = " ".join(capsys.readouterr().out.split())
    assert "LeRobot v2.1" in said
    assert "96 video files, of the episodes 0, 3, 4, 5, 6, and 91 more" in said
    assert "kRightHandThumbRotation" in said
