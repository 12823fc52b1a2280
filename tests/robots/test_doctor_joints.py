"""The doctor on joints: each mistake is found and named, and a healthy arm is left in peace."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patients import CARD, OLD_CARD, PATIENT, YAM_CARD, said, sample_for, severities

from molmoact2.robots.calibration import OLD_SO_FRAME
from molmoact2.robots.doctor.case import Case
from molmoact2.robots.doctor.joint_checks import place_of_joints
from molmoact2.robots.doctor.sample import Sample
from molmoact2.wire.messages import RobotCard

States = np.ndarray
PATIENTS = {"so101": CARD, "old so101": OLD_CARD, "yam": YAM_CARD}


def ill(card: RobotCard, mistake: Callable[[States], States]) -> Sample:
    """A healthy arm whose state is told with a mistake."""
    healthy = sample_for(card, actions=None)
    return replace(healthy, states=mistake(healthy.states))


def only(joint: int, function: Callable[[States], States], width: int = 6) -> Callable[[States], States]:
    """A mistake in one joint."""
    return lambda states: np.where(np.arange(width) == joint, function(states), states)


@pytest.mark.parametrize("name", PATIENTS)
@pytest.mark.parametrize(
    "check", ["joint count", "joint order", "joint ranges", "directions", "liveness", "temperature"]
)
def test_healthy_arm_is_left_in_peace(name: str, check: str):
    assert severities(check, sample_for(PATIENTS[name]), PATIENTS[name]) == {"ok"}


@pytest.mark.parametrize("name", PATIENTS)
@given(phase=st.floats(0, 2 * np.pi), sweep=st.floats(0, 0.45))
def test_no_pose_of_the_training_data_is_complained_about(name: str, phase: float, sweep: float):
    card = PATIENTS[name]
    low, high = np.array(card.state_statistics["q01"]), np.array(card.state_statistics["q99"])
    pose = (low + high) / 2 + sweep * (high - low) * np.sin(phase + np.arange(len(low)))
    still = sample_for(card, states=np.tile(pose, (30, 1)), actions=None)
    assert place_of_joints(Case(sample=still, card=card)).severity == "ok"


MISTAKES = {
    "new for old": (OLD_CARD, OLD_SO_FRAME.to_arm, 'calibration = "old"'),
    "old for new": (CARD, OLD_SO_FRAME.to_model, 'calibration = "new"'),
    "wrist flipped": (CARD, only(3, np.negative), "send -wrist_flex"),
    "elbow off by 90": (CARD, only(2, lambda states: states + 90), "send elbow_flex -90"),
    "gripper as fraction": (CARD, only(5, lambda states: states / 100), "multiply by 100"),
    "gripper inverted": (CARD, only(5, lambda states: 100 - states), "the gripper counts the other way round"),
    "degrees for radians": (
        YAM_CARD,
        lambda states: np.where(np.isin(np.arange(14), (6, 13)), states, np.rad2deg(states)),
        "multiply by pi/180",
    ),
    "gripper in per cent": (
        YAM_CARD,
        lambda states: np.where(np.isin(np.arange(14), (6, 13)), states * 100, states),
        "divide by 100",
    ),
    "flipped and in degrees": (
        YAM_CARD,
        lambda states: np.where(
            np.isin(np.arange(14), (6, 13)), states, np.rad2deg(np.where(np.arange(14) == 1, -states, states))
        ),
        "multiply by pi/180: ; send -left_joint_1.pos",
    ),
    "two flipped": (OLD_CARD, lambda states: states * (1, -1, -1, 1, 1, 1), "send -shoulder_lift; send -elbow_flex"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found_and_the_one_fix_proposed(name: str):
    card, mistake, fix = MISTAKES[name]
    text = said("joint ranges", ill(card, mistake), card)
    assert severities("joint ranges", ill(card, mistake), card) == {"problem"}
    for part in fix.split("; "):
        assert part.rstrip(": ") in text
    assert len(text.splitlines()[-1].split(";")) == len(fix.split("; ")), "and nothing else"


def test_radians_that_pass_for_degrees_are_suspected():
    sample = sample_for(OLD_CARD, actions=None)
    in_radians = replace(sample, states=np.column_stack([np.deg2rad(sample.states[:, :5]), sample.states[:, 5]]))
    assert severities("joint ranges", in_radians, OLD_CARD) == {"warning"}, (
        "2 degrees are a rare pose, not an impossible one"
    )
    assert "multiply by 180/pi" in said("joint ranges", in_radians, OLD_CARD)


def test_one_joint_of_a_still_arm_may_simply_stand_elsewhere():
    pose = sample_for(CARD).states.mean(axis=0)
    still = sample_for(CARD, states=np.tile(pose * (1, 1, 1, -1, 1, 1), (30, 1)), actions=None)
    assert severities("joint ranges", still, CARD) == {"warning"}
    assert "or one mistake explains it" in said("joint ranges", still, CARD)
    assert "send -wrist_flex" in said("joint ranges", still, CARD)


def test_pose_that_nothing_explains_is_a_warning():
    far = sample_for(CARD, states=np.tile((300.0, 300, 300, 300, 300, 50), (30, 1)), actions=None)
    assert severities("joint ranges", far, CARD) == {"warning"}
    assert "no known mistake explains it" in said("joint ranges", far, CARD)


def test_numbers_that_could_be_normalised_are_told_so():
    odd = sample_for(CARD, states=np.tile((99.0, 99, -99, -99, 99, 30), (30, 1)), actions=None)
    assert "use_degrees = true" in said("joint ranges", odd, CARD)


def test_rare_pose_is_a_warning():
    pose = np.array(CARD.state_statistics["q99"]) + 0.15 * np.subtract(
        CARD.state_statistics["q99"], CARD.state_statistics["q01"]
    )
    rare = sample_for(CARD, states=np.tile(pose, (30, 1)), actions=None)
    assert severities("joint ranges", rare, CARD) == {"warning"}
    assert "rarely" in said("joint ranges", rare, CARD)


def test_checkpoint_without_ranges_cannot_be_compared():
    assert severities("joint ranges", card=replace(CARD, state_statistics={"mean": (0.0,) * 6})) == {"unchecked"}


def test_wrong_count():
    short = replace(PATIENT, states=PATIENT.states[:, :5], names=PATIENT.names[:5], actions=None)
    assert severities("joint count", short) == {"problem"}
    assert "5 numbers, the checkpoint reads 6" in said("joint count", short)
    assert severities("joint ranges", short) == severities("joint order", short) == {"unchecked"}


def test_reading_that_is_no_number():
    states = PATIENT.states.copy()
    states[3, 2] = np.nan
    assert severities("joint count", replace(PATIENT, states=states)) == {"problem"}


def test_other_order():
    names = ("shoulder_lift", "shoulder_pan", *PATIENT.names[2:])
    assert severities("joint order", replace(PATIENT, names=names)) == {"problem"}
    assert "the robot sends shoulder_lift for shoulder_pan, shoulder_pan for shoulder_lift" in said(
        "joint order", replace(PATIENT, names=names)
    )


def test_other_names():
    names = ("base", *PATIENT.names[1:])
    assert severities("joint order", replace(PATIENT, names=names)) == {"warning"}
    assert "base for shoulder_pan" in said("joint order", replace(PATIENT, names=names))


def test_aliases_are_the_same_joints():
    names = tuple(f"main_{name}.pos" for name in PATIENT.names)
    assert severities("joint order", replace(PATIENT, names=names)) == {"ok"}


def test_gripper_beyond_its_range():
    wide = replace(PATIENT, states=PATIENT.states * (1, 1, 1, 1, 1, 5))
    assert severities("gripper", wide) == {"problem"}


def test_gripper_says_how_far_open_it_should_be():
    assert severities("gripper") == {"unchecked"}
    assert "% open, where 0 is closed and 100 open" in said("gripper")


def test_gripper_that_nobody_knows():
    card = replace(CARD, tag="a robot of mine", gripper_range=None)
    assert severities("gripper", card=card) == {"unchecked"}
    unknown = replace(card, action_units=("unknown",) * 6)
    assert "nobody says which" in said("gripper", card=unknown)


def test_joint_that_moves_against_its_commands():
    assert PATIENT.actions is not None
    against = replace(PATIENT, actions=PATIENT.actions * (1, 1, -1, 1, 1, 1))
    assert severities("directions", against) == {"problem"}
    assert "elbow_flex moved against" in said("directions", against)


def test_still_arm_that_was_told_to_move():
    still = replace(PATIENT, states=np.tile(PATIENT.states[0], (30, 1)))
    assert severities("liveness", still) == {"problem"}
    assert severities("liveness", replace(still, actions=None)) == {"unchecked"}
    assert severities("liveness", replace(still, actions=np.zeros((30, 6)))) == {"unchecked"}


def test_hot_motor():
    assert severities("temperature", replace(PATIENT, hottest_c=61.0)) == {"warning"}
    assert severities("temperature", replace(PATIENT, hottest_c=None)) == set()
