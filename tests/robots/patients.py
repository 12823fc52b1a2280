"""Healthy robots and their checkpoints, for the doctor's tests to make ill."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.robots.doctor.examine import diagnose
from molmoact2.robots.doctor.finding import Finding
from molmoact2.robots.doctor.sample import Kind, Sample, View, Watch
from molmoact2.wire.messages import RobotCard

LOW, HIGH = (-48.0, -64.0, -15.0, 60.0, -28.0, 13.0), (48.0, 18.0, 48.0, 95.0, 32.0, 47.0)
"""q01 and q99 of the states that the bundled checkpoint learned from, rounded."""
OLD_LOW, OLD_HIGH = (-42.1, 45.2, 35.4, 4.9, -65.6, -0.3), (48.6, 186.1, 173.6, 93.4, 43.5, 44.8)
"""The same of the released checkpoint for SO-100/101, which is in the old calibration."""
YAM_LOW = (-0.66, 0.004, 0.014, -1.374, -0.359, -0.93, 0.051, -0.494, 0.005, 0.017, -1.424, -0.974, -0.472, 0.033)
YAM_HIGH = (0.47, 2.244, 2.008, 0.134, 0.883, 0.334, 0.987, 0.738, 2.285, 2.061, 0.24, 0.53, 0.962, 0.995)
"""Of the actions of the released checkpoint for two YAM arms; taken for its states here."""


def card_for(tag: str, low: tuple[float, ...], high: tuple[float, ...], **changes: Any) -> RobotCard:
    """What a checkpoint for a robot of our table says."""
    table = EMBODIMENTS[tag]
    span = np.subtract(high, low)
    statistics = {
        "q01": low,
        "q99": high,
        "min": tuple(np.subtract(low, 0.2 * span).tolist()),
        "max": tuple(np.add(high, 0.2 * span).tolist()),
    }
    card = RobotCard(
        tag=tag,
        cameras=table.cameras,
        state_names=table.state_names,
        action_names=table.action_names,
        action_units=table.action_units,
        control_hz=table.control_hz,
        action_horizon=table.action_horizon,
        n_action_steps=table.n_action_steps,
        setup=table.setup,
        control_mode=table.control_mode,
        normalization="0" * 16,
        state_statistics=statistics,
        action_statistics=statistics,
        gripper_range=table.gripper_range,
    )
    return replace(card, **changes)


CARD = card_for("so101_tabletop", LOW, HIGH)
OLD_CARD = card_for("so100_so101_molmoact2", OLD_LOW, OLD_HIGH)
YAM_CARD = card_for("yam_dual_molmoact2", YAM_LOW, YAM_HIGH)


def scene(number: int) -> NDArray[np.uint8]:
    """[240, 320, 3] a warm picture, another for each number."""
    rows, columns = np.mgrid[0:240, 0:320]
    wave = np.sin(rows / (9 + 5 * number) + number) + np.cos(columns / (13 + 4 * number))
    return np.stack([120 + 40 * wave, 90 + 20 * wave + rows / 8, 70 + columns / 16], axis=-1).astype(np.uint8)


def view(name: str, *, number: int, rate_hz: float = 15.0, frames: int = 30, moving: float = 0.2, **watch: Any) -> View:
    """What a camera showed: a still scene with noise, of which a share `moving` is full of motion."""
    generator, collected, still = np.random.default_rng(number), Watch(name), scene(number)
    edge = round(moving * still.shape[1])
    for index in range(frames):
        image = still.astype(np.int16) + generator.integers(-2, 3, still.shape)
        image[:, :edge] += generator.integers(-60, 60)
        collected.add(image.clip(0, 255).astype(np.uint8), index / rate_hz, **watch)
    return collected.view()


VIEWS = {"front": view("front", number=1), "wrist": view("wrist", number=2, moving=0.8)}
"""Of a camera beside the arm, and of one on its wrist."""


def views() -> dict[str, View]:
    """Those, to be changed."""
    return dict(VIEWS)


def sample_for(card: RobotCard, *, kind: Kind = "live", sweep: float = 0.3, **changes: Any) -> Sample:
    """Two seconds of an arm that sweeps around the middle of its training data, with commands a step ahead."""
    low, high = np.array(card.state_statistics["q01"]), np.array(card.state_statistics["q99"])
    phase = np.linspace(0, 2 * np.pi, 31)[:, None] + np.arange(len(low))
    path = (low + high) / 2 + sweep * (high - low) * np.sin(phase)
    sample = Sample(
        source="a patient",
        kind=kind,
        names=card.state_names,
        times_s=np.arange(30) / card.control_hz,
        states=path[:-1],
        actions=path[1:],
        views=views(),
        hottest_c=38.0,
    )
    return replace(sample, **changes)


PATIENT = sample_for(CARD)


def examined(sample: Sample = PATIENT, card: RobotCard = CARD, **options: Any) -> Mapping[str, list[Finding]]:
    """Check -> its findings."""
    findings: dict[str, list[Finding]] = {}
    for finding in diagnose(sample, card, checkpoint="a checkpoint", **options).findings:
        findings.setdefault(finding.check, []).append(finding)
    return findings


def severities(check: str, sample: Sample = PATIENT, card: RobotCard = CARD, **options: Any) -> set[str]:
    """What a check says, in one word each."""
    return {finding.severity for finding in examined(sample, card, **options).get(check, [])}


def said(check: str, sample: Sample = PATIENT, card: RobotCard = CARD, **options: Any) -> str:
    """Everything that a check says."""
    found = examined(sample, card, **options).get(check, [])
    return "\n".join(f"{finding.seen}\n{finding.why}\n{finding.fix}" for finding in found)
