"""RLDS folders are read as `features.json` says, and what does not fit it is refused with file and offset."""

import json
from pathlib import Path

import numpy as np
import pytest
from rlds_folders import STEP_FEATURES, encoded, make_episode, tensor, write_rlds

from molmoact2.data.mapping import MAPPINGS, RldsMapping, mapping_for, read_mapping
from molmoact2.data.rlds import StepFeature, open_rlds
from molmoact2.data.tfrecord import masked_crc

BRIDGE = Path(__file__).parents[3] / "shared" / "data" / "bridge_debug"


@pytest.fixture
def folder(tmp_path):
    shards = {"train": [[make_episode(0, 3), make_episode(1, 4)], [make_episode(2, 2)]], "val": [[make_episode(3, 5)]]}
    return write_rlds(tmp_path / "toy", shards, masked_crc)


def test_features_are_named_by_their_path(folder):
    features = open_rlds(folder).features
    assert features["observation/state"] == StepFeature(kind="tensor", shape=(7,), dtype="float32")
    assert features["observation/image_0"] == StepFeature(kind="image", shape=(16, 24, 3))
    assert features["is_last"] == StepFeature(kind="tensor", shape=(), dtype="bool")
    assert features["language_instruction"].kind == "text"
    assert features["depth"].kind == "other"


def test_episodes_of_the_splits_in_order(folder):
    rlds = open_rlds(folder)
    assert (rlds.name, rlds.num_episodes(("train", "val")), rlds.num_episodes(("val",))) == ("toy", 4, 1)
    for number, episode in enumerate(rlds.episodes(("train", "val"))):
        expected = make_episode(number, (3, 4, 2, 5)[number])
        np.testing.assert_array_equal(episode.numbers("action").ravel(), expected["steps/action"])
        assert episode.numbers("is_last").tolist() == (expected["steps/is_last"] == 1).tolist()
        assert episode.texts("language_instruction") == [f"do task {number % 2}"] * (3, 4, 2, 5)[number]
        images = episode.images("observation/image_0")
        assert images.dtype == np.uint8
        assert images[:, 0, 0, 0].tolist() == (40 * number + 3 * np.arange(len(images))).tolist()


def test_unknown_split(folder):
    with pytest.raises(ValueError, match=r"Unknown split 'vla'. Did you mean 'val'"):
        next(open_rlds(folder).episodes(("vla",)))


@pytest.mark.parametrize(
    ("key", "values", "read", "message"),
    [
        ("steps/action", None, "numbers:action", "'action' is missing"),
        (
            "steps/action",
            np.zeros(20, np.float32),
            "numbers:action",
            r"20 numbers, which do not make steps of shape \[7\]",
        ),
        ("steps/action", np.zeros(21, np.int64), "numbers:action", "is not float32: i"),
        ("steps/action", [b"x"] * 3, "numbers:action", "is not float32: S"),
        ("steps/action", [], "numbers:action", "is not float32: empty"),
        ("steps/is_last", np.zeros(3, np.float32), "numbers:is_last", "is not bool: f"),
        ("steps/language_instruction", np.zeros(3), "texts:language_instruction", "numbers, not bytes"),
        ("steps/language_instruction", [b"\xff"], "texts:language_instruction", "no text"),
        ("steps/observation/image_0", [b"no"], "images:observation/image_0", "no readable PNG or JPEG"),
        ("steps/observation/image_0", [], "images:observation/image_0", r"shapes \[\], not all \[16, 24, 3\]"),
        (
            "steps/observation/image_0",
            [encoded(np.zeros((24, 16, 3), np.uint8))],
            "images:observation/image_0",
            r"\[\(24, 16, 3\)\], not all \[16, 24, 3\]",
        ),
    ],
)
def test_what_does_not_fit_its_description(tmp_path, key, values, read, message):
    wrong = {name: value for name, value in make_episode(1, 3).items() if name != key}
    wrong |= {key: values} if values is not None else {}
    folder = write_rlds(tmp_path / "toy", {"train": [[make_episode(0, 3), wrong]]}, masked_crc)
    first, second = open_rlds(folder).episodes(("train",))
    method, name = read.split(":")
    methods = {"numbers": second.numbers, "texts": second.texts, "images": second.images}
    place = rf"toy-train.tfrecord-00000-of-00001: in the record at byte {second.offset}, "
    assert second.offset > first.offset == 0
    with pytest.raises(ValueError, match=place + rf".*{message}"):
        methods[method](name)


def test_features_of_another_kind(folder):
    episode = next(open_rlds(folder).episodes(("train",)))
    with pytest.raises(ValueError, match=r"features.json: the feature 'depth' is other, not tensor. Map another"):
        episode.numbers("depth")
    with pytest.raises(ValueError, match="Did you mean 'observation/image_1'"):
        episode.images("observation/image_9")


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "toy-train.tfrecord-00001-of-00002"])
def test_missing_files(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        open_rlds(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("features.json", {}, "does not describe episodes of steps"),
        ("features.json", {"featuresDict": {"features": {"steps": 3}}}, "does not describe episodes of steps"),
        ("dataset_info.json", {"name": "toy"}, "does not say the name, and the splits"),
        ("dataset_info.json", {"name": "toy", "splits": [{"name": "train", "shardLengths": ["x"]}]}, "does not say"),
    ],
)
def test_descriptions_of_something_else(folder, name, content, message):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        open_rlds(folder)


def test_a_file_with_fewer_episodes_than_promised(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["3", "1"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"00000-of-00002: it holds 2 episodes, dataset_info.json promises 3"):
        list(open_rlds(folder).episodes(("train",)))


def test_texts_that_are_declared_as_tensors(tmp_path):
    features = STEP_FEATURES | {"language_instruction": tensor(dtype="string")}
    folder = write_rlds(tmp_path / "toy", {"train": [[make_episode(0, 2)]]}, masked_crc, step_features=features)
    (episode,) = open_rlds(folder).episodes(("train",))
    assert episode.texts("language_instruction") == ["do task 0"] * 2


MAPPING = """
fps = 10
robot_type = "toy"
state = ["observation/state"]
action = ["action"]
instruction = "language_instruction"

[cameras]
front = "observation/image_0"
"""


def test_a_mapping_is_read_from_toml(tmp_path):
    (tmp_path / "toy.toml").write_text(MAPPING)
    expected = RldsMapping(fps=10, robot_type="toy", cameras={"front": "observation/image_0"})
    assert read_mapping(tmp_path / "toy.toml") == mapping_for("bridge_dataset", tmp_path / "toy.toml") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fps = ", "toy.toml: it is no valid TOML"),
        ("fps = 5", "toy.toml: it does not say robot_type"),
        (MAPPING + "\n[more]", "Unknown field of a mapping 'more'"),
        (MAPPING.replace("10", "10.5"), "toy.toml: fps is 10.5"),
        (MAPPING.replace("10", "0"), "fps of a mapping must be an int of at least 1, got 0"),
        (MAPPING.replace('["action"]', '"action"'), "toy.toml: action is 'action'"),
        (MAPPING.replace('["action"]', "[]"), "at least one state and one action"),
        (MAPPING.replace('"observation/image_0"', "3"), r"toy.toml: cameras is \{'front': 3\}"),
        (MAPPING.replace('"toy"', "7"), "toy.toml: robot_type is 7"),
    ],
)
def test_wrong_mappings(tmp_path, content, message):
    (tmp_path / "toy.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_mapping(tmp_path / "toy.toml")


def test_unknown_data_sets_need_a_mapping(tmp_path):
    with pytest.raises(ValueError, match=r"'toy' mean is not known, only those of bridge_dataset. Give a TOML file"):
        mapping_for("toy", None)
    with pytest.raises(ValueError, match="the file is missing"):
        read_mapping(tmp_path / "no.toml")


def test_dimensions_are_named_after_the_embodiment():
    bridge = MAPPINGS["bridge_dataset"]
    assert bridge.names("action", 7) == ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    assert bridge.names("state", 2) == ("state_0", "state_1")


@pytest.mark.skipif(not BRIDGE.is_dir(), reason=f"the WidowX demonstrations are not at {BRIDGE}")
def test_real_demonstrations():
    rlds = open_rlds(BRIDGE)
    assert (rlds.name, rlds.num_episodes(tuple(rlds.shards))) == ("bridge_dataset", 50)
    episodes = list(rlds.episodes(("train", "val")))
    assert len(episodes) == 50
    assert episodes[0].texts("language_instruction") == ["put cup from counter or drying rack into sink"] * 10
    assert episodes[0].numbers("action").shape == (10, 7)
    gripper = np.concatenate([episode.numbers("action")[:, 6] for episode in episodes])
    assert (gripper.min(), gripper.max()) == (0.0, 1.0)
    means = [episodes[0].images(f"observation/image_{camera}").mean() for camera in range(4)]
    assert min(means[:3]) > 50
    assert means[3] == 0
