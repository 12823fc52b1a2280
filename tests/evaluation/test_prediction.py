"""One chunk for files or for a frame of a dataset, as a table and as a picture."""

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from worlds import LineExpert, LineWorld, Nudge

from molmoact2.cli.predict import Predict
from molmoact2.evaluation.prediction import (
    ActionSpace,
    action_space,
    action_table,
    dataset_sample,
    read_image,
    read_observation,
)
from molmoact2.evaluation.recording import Recording, record_dataset
from molmoact2.inference import load_policy
from molmoact2.testing import tiny_checkpoint
from molmoact2.types import ActionChunk


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, two pictures and a dataset of two episodes."""
    folder = tmp_path_factory.mktemp("predict")
    tiny_checkpoint(folder / "tiny")
    for name, shade in (("front", 40), ("wrist", 200)):
        Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(folder / f"{name}.png")
    recording = Recording(
        open_environment=LineWorld,
        open_expert=LineExpert,
        open_perturbation=Nudge,
        tasks=("left",),
        num_episodes=2,
    )
    for _ in record_dataset(recording, folder / "data", {}):
        pass
    return folder


def test_files_become_an_observation(folder):
    observation = read_observation([folder / "front.png", folder / "wrist.png"], [1, 2, 3], "go")
    assert [image.shape for image in observation.images] == [(48, 64, 3)] * 2
    assert observation.images[1][0, 0].tolist() == [200, 200, 200]
    assert observation.state.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["nowhere.png", "tiny/config.json", "tiny"])
def test_a_file_that_is_no_picture_is_named(folder, name):
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a picture"):
        read_image(folder / name)


def test_a_sample_ends_with_its_episode(folder):
    observation, recorded = dataset_sample(folder / "data", 2, horizon=5)
    assert observation.instruction == "go left"
    assert recorded.shape == (5, 6)
    assert (np.diff(recorded[:, 0]) < 0).all()
    length = dataset_length(folder / "data")
    assert dataset_sample(folder / "data", length - 3, horizon=5)[1].shape == (3, 6)


def dataset_length(path):
    from molmoact2.data import LeRobotDataset

    return len(LeRobotDataset(path))


def test_the_table_names_joints_units_and_times():
    space = ActionSpace(names=("shoulder_pan", "gripper"), units=("deg", "percent"), control_hz=10, num_action_steps=1)
    chunk = ActionChunk(actions=np.array([[1.5, 20], [2.5, 30]], np.float32))
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(action_table(chunk, space))
    text = console.export_text()
    assert "shoulder pan" in text
    assert "percent" in text
    assert text.index("0.10 s") > text.index("1.50")


def test_names_and_units_come_with_the_checkpoint(folder):
    space = action_space(load_policy(folder / "tiny").processor.tag("so101_tabletop"))
    assert space.names[-1] == "gripper"
    assert space.units[-1] == "percent"
    assert (space.control_hz, space.num_action_steps) == (15.0, 12)


def test_it_predicts_from_pictures(folder, capsys):
    Predict(
        policy=str(folder / "tiny"),
        images=(folder / "front.png", folder / "wrist.png"),
        state=(0, -60, 40, 60, 0, 20),
        instruction="pick up the red cube",
    ).run()
    printed = capsys.readouterr().out
    assert "pick up the red cube" in printed
    assert "The first 12 of 16 are executed" in " ".join(printed.split())


def test_it_predicts_from_a_dataset_and_draws(folder, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "chunk.png"
    Predict(policy=str(folder / "tiny"), dataset=folder / "data", index=1, output=picture).run()
    with Image.open(picture) as image:
        assert image.width > 1000


@pytest.mark.parametrize(
    "flags", [{}, {"images": ("a.png",), "dataset": "d"}, {"images": ("a.png",)}, {"state": (1.0,)}], ids=str
)
def test_a_question_with_parts_missing_is_refused(flags):
    with pytest.raises(ValueError, match=r"Give either|needs all of"):
        Predict(policy="tiny", **flags)
