"""A dataset's robot is what the dataset says, what a user says, or a question; it is never guessed between two."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, ExtraColumn, LeRobotDataset
from molmoact2.data.card import CARD_PATH, KINDS, DatasetCard, card_for, feature_names, read_card, write_card
from molmoact2.embodiments import EMBODIMENTS, FRANKA_JOINTS, SO101_TABLETOP, SO_JOINTS, YAM_JOINTS

SO = "so100_so101_molmoact2"
FULL_SO = tuple(f"main_{joint}" for joint in SO_JOINTS)


def record(
    root: Path,
    *,
    robot_type: str = "unknown",
    names: tuple[str, ...] = SO_JOINTS,
    cameras: tuple[str, ...] = ("front",),
    fps: int = 30,
    gripper: float = 50.0,
    **extras: ExtraColumn,
) -> LeRobotDataset:
    """Three frames of any robot."""
    schema = DatasetSchema(
        fps=fps, robot_type=robot_type, state_names=names, action_names=names,
        image_sizes=dict.fromkeys(cameras, (16, 16)), extras=extras,
    )  # fmt: skip
    vector = np.array([gripper if "gripper" in name else 0.5 for name in names], np.float32)
    with DatasetWriter(root, schema) as writer:
        writer.add_episode(
            Episode(
                images={camera: np.zeros((3, 16, 16, 3), np.uint8) for camera in cameras},
                state=np.tile(vector, (3, 1)),
                action=np.tile(vector, (3, 1)),
                task="wave",
                extras={name: np.ones((3, len(column.names)), column.dtype) for name, column in extras.items()},
            )
        )
    return LeRobotDataset(root)


def rename(dataset: LeRobotDataset, **features: object) -> LeRobotDataset:
    """The dataset with other names in `info.json`."""
    path = dataset.root / "meta/info.json"
    info = json.loads(path.read_text())
    for key, names in features.items():
        info["features"][{"state": "observation.state"}.get(key, key)]["names"] = names
    path.write_text(json.dumps(info))
    return LeRobotDataset(dataset.root)


@pytest.mark.parametrize("robot", EMBODIMENTS.values(), ids=lambda robot: robot.tag)
def test_known_robots_recognise_their_own_recordings(tmp_path, robot):
    cameras = robot.cameras or ("b", "a")
    dataset = record(tmp_path, robot_type=robot.tag, cameras=tuple(reversed(cameras)), names=robot.action_names)
    card = card_for(dataset)
    assert card.tag == robot.tag
    assert card.robot.cameras == (robot.cameras or ("a", "b")), "the robot's order counts, not the dataset's"
    assert card.robot.control_hz == 30
    assert card.camera_sets == (card.robot.cameras,)
    np.testing.assert_array_equal(card.states(dataset), dataset.states)
    np.testing.assert_array_equal(card.actions(dataset), dataset.actions)


@pytest.mark.parametrize(
    ("robot_type", "names", "cameras", "fps", "tag"),
    [
        ("so101_follower", SO_JOINTS, ("laptop", "phone"), 30, SO),
        ("unknown", FULL_SO, ("laptop", "phone"), 30, SO),
        ("unknown", tuple(f"{joint}.pos" for joint in SO_JOINTS), ("up",), 30, SO),
        ("molmoact_dual_arm", YAM_JOINTS, ("camera_left", "camera_front", "camera_right"), 30, "yam_dual_molmoact2"),
        ("unknown", FRANKA_JOINTS, ("wrist_left", "exterior_2_left", "exterior_1_left"), 15, "franka_droid"),
    ],
)
def test_other_names_of_known_robots(tmp_path, robot_type, names, cameras, fps, tag):
    card = card_for(record(tmp_path, robot_type=robot_type, names=names, cameras=cameras, fps=fps))
    assert card.tag == tag
    assert card.robot.state_names == EMBODIMENTS[tag].state_names


def test_yam_cameras_of_older_recordings_are_put_in_order(tmp_path):
    cameras = ("camera_left", "camera_front", "camera_right")
    dataset = record(tmp_path, names=YAM_JOINTS, cameras=cameras, gripper=1)
    assert card_for(dataset, "yam_dual_molmoact2").robot.cameras == ("camera_front", "camera_left", "camera_right")


@pytest.mark.parametrize(
    ("names", "fps", "reason"),
    [(("a", "b"), 30, "0 of the known"), (SO_JOINTS, 20, "0 of the known"), (FRANKA_JOINTS, 15, "0 of the known")],
)
def test_an_unknown_robot_is_asked_for(tmp_path, names, fps, reason):
    dataset = record(tmp_path, names=names, fps=fps)
    with pytest.raises(ValueError, match=reason) as error:
        card_for(dataset)
    for part in (*names, "front", f"{fps} frames", "franka_droid", "new:NAME", CARD_PATH):
        assert part in str(error.value)


def test_two_robots_that_fit_are_a_question(tmp_path):
    names = EMBODIMENTS["google_robot_bc_z"].action_names
    card_for(record(tmp_path / "ten", names=names, cameras=("image",), fps=10, gripper=1))
    with pytest.raises(ValueError, match="0 of the known"):
        card_for(record(tmp_path / "five", names=names, cameras=("image",), fps=5, gripper=1))


def test_a_new_robot_needs_no_more_than_a_name(tmp_path):
    dataset = record(tmp_path, names=("hip", "knee", "left_gripper"), cameras=("b", "a"), fps=12)
    card = card_for(dataset, "new:dog_two")
    robot = card.robot
    assert (robot.tag, robot.setup, robot.control_mode) == ("dog_two", "dog two robot", "absolute joint pose")
    assert (robot.action_horizon, robot.n_action_steps, robot.control_hz) == (12, 12, 12.0)
    assert robot.cameras == dataset.cameras
    assert robot.normalize_gripper, "it reaches 50"
    assert not card_for(record(tmp_path / "small", names=("gripper",), gripper=1), "new:g").robot.normalize_gripper
    pose = record(tmp_path / "pose", names=("x", "y", "z"))
    assert card_for(pose, "new:pose").robot.control_mode == "delta end-effector pose"


def test_what_is_new_is_not_known(tmp_path):
    with pytest.raises(ValueError, match="no new robot"):
        card_for(record(tmp_path), f"new:{SO}")


@pytest.mark.parametrize("wrong", ["so100", "new:", "card.yaml"])
def test_unknown_names_are_answered_with_the_known(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"Unknown embodiment .*franka_droid.*new:NAME"):
        card_for(record(tmp_path), wrong)


@pytest.mark.parametrize(
    ("names", "tag", "message"),
    [
        (tuple(reversed(SO_JOINTS)), SO, "order must agree"),
        (SO_JOINTS[:5], SO, "Numbers and order"),
        (FRANKA_JOINTS, "libero", "needs image, wrist_image"),
        (YAM_JOINTS, "franka_droid", "needs exterior_1_left"),
    ],
)
def test_a_robot_that_does_not_fit_is_refused(tmp_path, names, tag, message):
    with pytest.raises(ValueError, match=message):
        card_for(record(tmp_path, names=names), tag)


def test_cameras_can_be_named(tmp_path):
    dataset = record(tmp_path, names=FRANKA_JOINTS, cameras=("cam0", "cam1"), gripper=1)
    assert card_for(dataset, "franka_droid", cameras=["cam1", "cam0"]).robot.cameras == ("cam1", "cam0")
    for cameras in (["cam2"], ["cam0", "cam0"]):
        with pytest.raises(ValueError, match="1 to 5 distinct cameras"):
            card_for(dataset, "franka_droid", cameras=cameras)


def test_end_effector_states_are_what_the_dataset_says(tmp_path):
    robot = EMBODIMENTS["widowx_bridge"]
    dataset = record(tmp_path, names=robot.action_names, cameras=robot.cameras, pose=ExtraColumn(names=("a", "b")))
    path = tmp_path / "card.toml"
    path.write_text('tag = "widowx_bridge"\nstate_keys = ["observation.state", "pose"]\n')
    card = card_for(dataset, path)
    assert card.robot.state_names == (*(f"observation.state:{name}" for name in robot.action_names), "pose:a", "pose:b")
    np.testing.assert_array_equal(card.states(dataset)[:, -2:], 1)


def test_a_card_names_what_differs(tmp_path):
    dataset = record(tmp_path / "data", cameras=("top", "side", "wrist"))
    path = tmp_path / "arm.toml"
    path.write_text(
        'tag = "my_arm"\nsetup = "single my arm on a desk"\ncameras = ["wrist", "top"]\n'
        'cameras_alternative = ["wrist", "side"]\naction_horizon = 15\nn_action_steps = 10\n'
        "gripper_range = [0, 50]\n"
    )
    card = card_for(dataset, path)
    robot = card.robot
    assert (card.tag, robot.setup) == ("my_arm", "single my arm on a desk")
    assert (robot.action_horizon, robot.n_action_steps, robot.gripper_range) == (15, 10, (0.0, 50.0))
    assert card.camera_sets == (("wrist", "top"), ("wrist", "side"))
    assert robot.state_names == SO_JOINTS


def test_a_card_is_read_as_it_was_written(tmp_path):
    dataset = record(tmp_path, robot_type="so101_tabletop", cameras=("front", "wrist"))
    plain = card_for(dataset)
    card = replace(plain, cameras_alternative=("front",))
    other = replace(card, robot=replace(card.robot, setup="grüner Arm", state_limits=((0.0, 1.0),) * 6))
    path = write_card(tmp_path, other)
    assert path == tmp_path / CARD_PATH
    assert card_for(LeRobotDataset(tmp_path)) == other, "the dataset's own card comes before its robot_type"
    assert card_for(LeRobotDataset(tmp_path), "so101_tabletop") == plain, "a user's word comes first"
    assert read_card(path).keys() <= KINDS.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("{}", "no tag"),
        ('{"tag": ""}', "'tag' must be a text"),
        ('{"tag": "a", "colour": 1}', r"unknown fields \['colour'\]"),
        ('{"tag": "a", "action_horizon": 0}', "'action_horizon' must be a whole number"),
        ('{"tag": "a", "control_hz": true}', "'control_hz' must be a positive number"),
        ('{"tag": "a", "cameras": ["x", "x"]}', "distinct"),
        ('{"tag": "a", "gripper_range": [1]}', "two numbers"),
        ('{"tag": "a", "action_limits": [[0, 1], 2]}', "pairs"),
        ('{"tag": "a", "normalize_gripper": 1}', "true or false"),
    ],
)
def test_malformed_cards_are_refused(tmp_path, content, message):
    path = tmp_path / "card.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_card(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("n_action_steps = 31", "n_action_steps <= action_horizon"),
        ('action_units = ["deg"]', "other lengths than its action_names"),
        ("state_limits = [[0, 1]]", "other lengths than its state_names"),
        ('camera_roles = ["scene", "wrist"]', "other lengths than its cameras"),
        ('cameras = ["back"]', "1 to 5 distinct cameras"),
        ('cameras_alternative = ["back"]', "1 to 5 distinct cameras"),
        ('state_keys = ["observation.stat"]', "Did you mean 'observation.state'"),
        ('action_names = ["one"]', "other lengths than its action_names"),
        ('action_names = ["one"]\naction_units = ["deg"]', "Numbers and order"),
    ],
)
def test_cards_that_contradict_themselves_or_the_dataset_are_refused(tmp_path, said, message):
    path = tmp_path / "card.toml"
    path.write_text(f'tag = "{SO}"\n{said}\n')
    dataset = record(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        card_for(dataset, path)


def test_missing_and_broken_toml(tmp_path):
    with pytest.raises(ValueError, match="missing"):
        read_card(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("tag =")
    with pytest.raises(ValueError, match="not valid TOML"):
        read_card(tmp_path / "broken.toml")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["p", "q", "r"], ("p", "q", "r")),
        ([["p", "q", "r"]], ("p", "q", "r")),
        ({"motors": ["p", "q", "r"]}, ("p", "q", "r")),
        ({"left": ["p"], "right": ["q", "r"]}, ("p", "q", "r")),
        ({"r": 2, "p": 0, "q": 1}, ("p", "q", "r")),
        (None, ("state_0", "state_1", "state_2")),
        (["motors"], ("state_0", "state_1", "state_2")),
        (["p", "p", "q"], ("state_0", "state_1", "state_2")),
    ],
)
def test_names_in_all_the_ways_that_datasets_write_them(tmp_path, names, expected):
    dataset = rename(record(tmp_path, names=("a", "b", "c")), state=names)
    assert feature_names(dataset, "observation.state") == expected


def test_a_killed_writer_leaves_the_card_as_it_was(tmp_path):
    dataset = record(tmp_path, robot_type="so101_tabletop", cameras=("front", "wrist"))
    before = write_card(tmp_path, card_for(dataset)).read_bytes()
    script = f"""
import os, signal
from pathlib import Path
from molmoact2.data import LeRobotDataset
from molmoact2.data.card import card_for, write_card
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_card(Path({str(tmp_path)!r}), card_for(LeRobotDataset({str(tmp_path)!r}), "new:other"))
"""
    result = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / CARD_PATH).read_bytes() == before


def test_a_card_without_alternatives_has_one_choice_of_cameras():
    assert DatasetCard(robot=SO101_TABLETOP).camera_sets == (("front", "wrist"),)


G1 = Path("/work/shared/data/g1_bottle")


@pytest.mark.skipif(not G1.exists(), reason=f"needs the recording of a humanoid in {G1}")
def test_a_real_recording_of_a_humanoid():
    card = card_for(LeRobotDataset(G1), "new:g1")
    assert (len(card.robot.state_names), card.robot.state_names[0]) == (26, "kLeftShoulderPitch")
    assert card.robot.cameras == ("cam_high",)
