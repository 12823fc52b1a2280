"""`molmoact2 depth label`: what is asked for is labelled, and mistakes are answered."""

import numpy as np
import pytest
import tyro

from molmoact2.cli.depth.label import Label, read_shard
from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.data.depth_labels import DepthLabels
from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, save_codec
from molmoact2.embodiments import SO101_TABLETOP


def record(root, *, robot_type, fps, joints):
    """Two episodes of three frames; returns the dataset."""
    names = tuple(f"joint {index}" for index in range(joints))
    cameras = dict.fromkeys(("wrist", "front"), (64, 64))
    schema = DatasetSchema(fps=fps, robot_type=robot_type, state_names=names, action_names=names, image_sizes=cameras)
    with DatasetWriter(root, schema) as writer:
        for number in range(2):
            images = np.random.default_rng(number).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
            values = np.zeros((3, joints), np.float32)
            writer.add_episode(
                Episode(images={"front": images, "wrist": images}, state=values, action=values, task="t")
            )
    return LeRobotDataset(root)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codecs") / "codec"
    scale = DepthScale(kind="fixed", low=0.0, high=1.0)
    sizes = {"channels": (2, 2, 2, 2, 2), "code_dim": 3, "num_codes": 4}
    save_codec(DepthCodec(CodecConfig(**sizes, scale=scale, unit="m")), folder)
    return folder


@pytest.fixture
def tabletop(tmp_path):
    return record(tmp_path / "data", robot_type=SO101_TABLETOP.tag, fps=15, joints=6)


@pytest.fixture
def from_brightness(monkeypatch):
    """Every source is brightness; its words are kept."""
    from molmoact2.depth.sources import CallableDepth
    from molmoact2.evaluation import depth_sources

    asked = []

    def function(dataset, record, camera):
        return dataset.episode_images(record.episode_index, camera).astype(np.float32).mean(axis=3) / 255

    def choose(words, _dataset, cameras, device):
        asked.append((words, cameras, device))
        source = CallableDepth(function=function, unit="m", name=words)
        return depth_sources.SourceChoice(name=words, unit="m", open=lambda _dataset: source)

    monkeypatch.setattr(depth_sources, "choose_source", choose)
    return asked


def run(*arguments):
    tyro.cli(Label, args=[str(argument) for argument in arguments]).run()


def test_the_first_camera_of_the_robot_beside_the_dataset(tabletop, codec, from_brightness, tmp_path, capsys):
    run(tabletop.root, "--codec", codec, "--source", "my eyes")
    assert from_brightness == [("my eyes", ("front",), "cpu")]
    labels = DepthLabels.open(tmp_path / "data_depth", tabletop)
    assert labels.cameras == ("front",)
    assert labels.run.source == "my eyes"
    said = " ".join(capsys.readouterr().out.split())
    assert "2 episodes, 6 frames (" in said
    assert "per second" in said
    run(tabletop.root, "--codec", codec, "--source", "my eyes")
    assert "all there already" in " ".join(capsys.readouterr().out.split())


def test_what_is_asked_for(tabletop, codec, from_brightness, tmp_path):
    for shard in ("0/2", "1/2"):
        cameras = ["--cameras", "wrist", "front"]
        run(tabletop.root, "--codec", codec, "--source", "x", *cameras, "--output", tmp_path / "mine", "--shard", shard)
    assert from_brightness[0][1] == ("wrist", "front")
    assert DepthLabels.open(tmp_path / "mine", tabletop).cameras == ("wrist", "front")


def test_a_robot_that_nobody_knows(codec, from_brightness, tmp_path):
    record(tmp_path / "data", robot_type="crane", fps=15, joints=2)
    with pytest.raises(ValueError, match=r"Name the camera with --cameras, one of wrist, front: "):
        run(tmp_path / "data", "--codec", codec, "--source", "x")
    assert from_brightness == []


@pytest.mark.parametrize("text", ["", "1", "1/2/3", "one/2", "-1/2", "1/", "½/2"])
def test_shards_that_are_not_written_as_one(text):
    with pytest.raises(ValueError, match="written as 0/4"):
        read_shard(text)


def test_shards():
    assert read_shard("3/12") == (3, 12)


def test_help_says_what_sources_there_are(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Label, args=["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "feature:NAME" in said
    assert "Depth-Anything-V2" in said
