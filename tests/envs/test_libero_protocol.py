"""The numbers that results were published under, and that a digest tells any two protocols apart."""

from dataclasses import fields, replace

import pytest

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.envs import ENVIRONMENTS, make_for_recording, protocol_facts
from molmoact2.envs.libero.protocol import LIBERO_NAMES, PAPER, PRESETS, SMALL, SUITES, LiberoProtocol


@pytest.mark.parametrize(
    ("name", "settle", "spatial", "rendered", "delivered", "seed", "advances", "digest"),
    [
        ("molmoact2-paper", 50, 280, 360, 360, 1000, True, "de86170a463623a5"),
        ("lerobot", 10, 280, 360, 360, 1000, True, "8676b4e2e02ae1af"),
        ("openpi", 10, 220, 256, 224, 7, False, "0b6a1393a8e2aaf5"),
        ("small", 50, 280, 128, 128, 1000, True, "89181e33eaec6193"),
    ],
)
def test_presets_are_what_was_published(name, settle, spatial, rendered, delivered, seed, advances, digest):
    protocol = PRESETS[name]
    assert protocol.settle_steps == settle
    assert tuple(protocol.max_steps[suite] for suite in SUITES) == (spatial, 280, 300, 520, 400)
    assert (protocol.rendered_px, protocol.delivered_px) == (rendered, delivered)
    assert (protocol.simulator_seed, protocol.seed_advances) == (seed, advances)
    assert protocol.settle_action == (0, 0, 0, 0, 0, 0, -1)
    assert (protocol.control_hz, protocol.half_turn, protocol.fold_rotation, protocol.gripper) == (
        20,
        True,
        False,
        "raw",
    )
    assert protocol.initial_states == "official"
    assert protocol.digest() == digest, "result files hold this digest: a change makes old results incomparable"


def test_any_change_changes_the_digest():
    other = {
        "name": "x", "settle_steps": 49, "settle_action": (0.0,) * 7, "max_steps": {**PAPER.max_steps, "libero_10": 5},
        "control_hz": 10, "rendered_px": 256, "delivered_px": 256, "half_turn": False, "fold_rotation": True,
        "gripper": "sign", "initial_states": "fresh", "simulator_seed": 0, "seed_advances": False, "success": "at end",
    }  # fmt: skip
    assert other.keys() == {field.name for field in fields(LiberoProtocol)}
    digests = {replace(PAPER, **{name: value}).digest() for name, value in other.items()}
    assert len(digests | {PAPER.digest()}) == len(other) + 1
    assert replace(PAPER).digest() == PAPER.digest()


def test_the_rate_in_the_table_is_that_of_data_sets():
    robot = EMBODIMENTS["libero"]
    assert (robot.control_hz, robot.n_action_steps, PAPER.control_hz) == (10, 10, 20)


@pytest.mark.parametrize("change", [{"settle_steps": -1}, {"rendered_px": 0}, {"delivered_px": 0}, {"control_hz": 0}])
def test_impossible_protocols_are_refused(change: dict[str, int]):
    with pytest.raises(ValueError, match="settles for 0 or more steps"):
        replace(PAPER, **change)


def test_every_name_says_its_suite_and_its_protocol():
    assert LIBERO_NAMES["libero_goal"] == ("libero_goal", PAPER)
    assert LIBERO_NAMES["libero_10-openpi"] == ("libero_10", PRESETS["openpi"])
    assert LIBERO_NAMES["libero_object-small"] == ("libero_object", SMALL)
    assert LIBERO_NAMES["libero_object_swap"] == ("libero_object_swap", PAPER)
    assert LIBERO_NAMES.keys() < ENVIRONMENTS.keys()


def test_results_say_their_protocol():
    assert protocol_facts("so101") == {}
    assert protocol_facts("libero_object") == {
        "libero_protocol": "molmoact2-paper",
        "libero_protocol_digest": PAPER.digest(),
    }


def test_recordings_have_square_pictures_of_known_environments():
    with pytest.raises(ValueError, match="square; got 128 x 96"):
        make_for_recording("libero_object", image_size=(128, 96))
    with pytest.raises(ValueError, match="Did you mean 'libero_object'"):
        make_for_recording("libero_objects", image_size=(128, 128))
