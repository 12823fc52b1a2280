"""The doctor on rates, answers and checkpoints, and the diagnosis as a whole."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from patients import CARD, PATIENT, examined, said, sample_for, severities
from PIL import Image
from rich.console import Console

from molmoact2.control.clock import VirtualClock
from molmoact2.robots.doctor.case import Trial
from molmoact2.robots.doctor.examine import diagnose
from molmoact2.robots.doctor.report import print_diagnosis, write_contact_sheet
from molmoact2.robots.doctor.sample import sample
from molmoact2.robots.dry_run import DryRun, DryRunSettings

ANSWERED = Trial(seconds=0.1, first_action=PATIENT.states[-1] + 1)


@pytest.mark.parametrize("check", ["reading rate", "answer", "first step", "latency", "embodiment", "steps"])
@pytest.mark.parametrize("execution", ["open-loop", "asynchronous"])
def test_healthy_timing_is_left_in_peace(check: str, execution: str):
    assert severities(check, trial=ANSWERED, execution=execution) == {"ok"}


def test_slow_readings():
    slow = replace(PATIENT, times_s=np.arange(30) / 9)
    assert severities("reading rate", slow) == {"warning"}
    assert "9.0 a second" in said("reading rate", slow)


def test_recording_of_another_rate():
    fast = replace(PATIENT, times_s=np.arange(30) / 30)
    assert severities("reading rate", fast) == {"ok"}
    assert severities("reading rate", replace(fast, kind="recorded")) == {"warning"}
    assert "resample" in said("reading rate", replace(fast, kind="recorded"))


@pytest.mark.parametrize("times", [np.zeros(30), -np.arange(30.0)])
def test_time_that_does_not_pass(times: np.ndarray):
    assert severities("reading rate", replace(PATIENT, times_s=times)) == {"problem"}


def test_robot_of_unknown_rate():
    card = replace(CARD, tag="mine", control_hz=0.0)
    assert severities("reading rate", card=card) == {"unchecked"}
    assert severities("latency", card=card, trial=ANSWERED) == {"unchecked"}
    assert severities("frame rate", card=card) == {"ok"}


@pytest.mark.parametrize(
    ("seconds", "execution", "severity"),
    [
        (0.2, "open-loop", "ok"),
        (0.3, "open-loop", "warning"),
        (3.0, "open-loop", "warning"),
        (0.5, "asynchronous", "ok"),
        (0.6, "asynchronous", "warning"),
        (1.1, "asynchronous", "problem"),
    ],
)
def test_latency_against_what_is_planned(seconds: float, execution: str, severity: str):
    assert severities("latency", trial=Trial(seconds=seconds), execution=execution) == {severity}


def test_policy_that_was_not_asked():
    assert severities("latency") == {"unchecked"}
    assert "answer" not in examined()


def test_policy_that_refuses():
    refused = Trial(refusal="state has 5 numbers")
    assert severities("answer", trial=refused) == {"problem"}
    assert "state has 5 numbers" in said("answer", trial=refused)


def test_first_action_that_leaps():
    leap = Trial(seconds=0.1, first_action=PATIENT.states[-1] + (0, 0, 40, 0, 0, 0))
    assert severities("first step", trial=leap) == {"warning"}
    assert "elbow_flex: +40 deg" in said("first step", trial=leap)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"control_hz": 30.0}, "control rate in Hz: the checkpoint says 30.0"),
        ({"action_units": ("rad",) * 6}, "action units"),
        ({"action_horizon": 30}, "action horizon"),
        ({"gripper_range": (100.0, 0.0)}, "gripper range"),
        ({"cameras": ("wrist", "front")}, "cameras: the checkpoint says ('wrist', 'front')"),
    ],
)
def test_checkpoint_that_differs_from_the_table(change: dict[str, object], words: str):
    card = replace(CARD, **change)
    assert severities("embodiment", card=card) == {"warning"}
    assert words in said("embodiment", card=card)


def test_checkpoint_that_nobody_knows():
    assert severities("embodiment", card=replace(CARD, tag="mine")) == {"unchecked"}


def test_more_steps_than_there_are():
    assert severities("steps", card=replace(CARD, n_action_steps=17)) == {"warning"}


def test_diagnosis_as_json_and_in_words():
    well = diagnose(PATIENT, CARD, checkpoint="nano", trial=ANSWERED)
    ill = diagnose(replace(PATIENT, hottest_c=61.0, views={}), CARD, checkpoint="nano")
    assert well.is_healthy
    assert not ill.is_healthy
    document = json.loads(json.dumps(ill.document()))
    assert document["is_healthy"] is False
    assert document["counts"]["problem"] == ill.counts["problem"] > 0
    assert {finding["check"] for finding in document["sections"]["Joints"]} >= {"joint count", "temperature"}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_diagnosis(ill, console)
    text = console.export_text()
    for words in ("nano", "Cameras", "✗", "!", "→", "61 °C", "before anything moves"):
        assert words in text


def test_nothing_to_look_at_is_refused():
    with pytest.raises(ValueError, match="at least two readings"):
        diagnose(replace(PATIENT, times_s=PATIENT.times_s[:1]), CARD, checkpoint="nano")


def test_contact_sheet_shows_every_camera(tmp_path: Path):
    write_contact_sheet(sample_for(CARD), tmp_path / "sheets" / "sheet.png")
    with Image.open(tmp_path / "sheets" / "sheet.png") as sheet:
        assert sheet.width > 2 * 320
        assert sheet.height > 240


def test_robot_is_watched_and_told_nothing():
    class Watched(DryRun):
        def command(self, target: np.ndarray, /) -> None:
            raise AssertionError(f"the doctor commands nothing, {target} neither")

        def hold(self) -> None:
            raise AssertionError("nor does it hold")

    clock = VirtualClock()
    seen = sample(Watched(DryRunSettings(camera_fps=5), clock), 2.0, source="dry run")
    assert seen.times_s == pytest.approx(np.arange(30) / 15)
    assert seen.states.shape == (30, 6)
    assert seen.names == CARD.state_names
    assert len(seen.views["front"].times_s) == 10, "new frames only"
    assert seen.views["front"].ages_s.max() < 0.2
    assert seen.views["front"].sizes == ((240, 320),)
