"""`molmoact2 depth fit`: from a dataset to a codec, its numbers and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import tyro

from molmoact2.cli.depth.fit import Fit
from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.depth import codec_config
from molmoact2.depth.codec import load_codec
from molmoact2.depth.fit import CodecFit
from molmoact2.depth.sources import CallableDepth
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.evaluation import depth_sources
from molmoact2.evaluation.depth_fit_data import DepthEpisodes, choose_scale, span_of, spread

NAMES = tuple(f"joint {index}" for index in range(6))


@pytest.fixture
def dataset(tmp_path: Path) -> LeRobotDataset:
    """Six episodes of three frames of a box on a slope."""
    schema = DatasetSchema(
        fps=15,
        robot_type=SO101_TABLETOP.tag,
        state_names=NAMES,
        action_names=NAMES,
        image_sizes=dict.fromkeys(("wrist", "front"), (64, 64)),
    )
    with DatasetWriter(tmp_path / "data", schema) as writer:
        for number in range(6):
            images = np.tile(np.linspace(220, 90, 64).astype(np.uint8)[:, None, None], (3, 1, 64, 3))
            for frame in range(3):
                images[frame, 8 * number : 8 * number + 12, 10 * frame : 10 * frame + 12] -= 60
            values = np.zeros((3, 6), np.float32)
            writer.add_episode(
                Episode(images={"front": images, "wrist": images}, state=values, action=values, task="t")
            )
    return LeRobotDataset(tmp_path / "data")


def brightness(dataset: LeRobotDataset, record, camera: str) -> np.ndarray:
    return dataset.episode_images(record.episode_index, camera).astype(np.float32).mean(axis=3) / 255


BRIGHTNESS = CallableDepth(function=brightness, unit="m", name="brightness")


@pytest.fixture(autouse=True)
def from_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source is brightness, and the smallest network a quick one."""
    monkeypatch.setitem(codec_config.SIZES, "nano", ((2, 2, 2, 2, 4), 3))

    def choose(words: str, _dataset: object, _cameras: object, _device: str) -> depth_sources.SourceChoice:
        return depth_sources.SourceChoice(name=words, unit="m", open=lambda _: BRIGHTNESS)

    monkeypatch.setattr(depth_sources, "choose_source", choose)


def run(*arguments: object) -> None:
    tyro.cli(Fit, args=[str(argument) for argument in arguments]).run()


def episodes(dataset: LeRobotDataset, hold_out: int = 3) -> DepthEpisodes:
    return DepthEpisodes(dataset=dataset, source=BRIGHTNESS, camera="front", hold_out=hold_out)


SHORT = ("--steps", 3, "--batch-size", 2, "--hold-out", 3)


def test_a_codec_its_numbers_and_its_picture(dataset, tmp_path: Path, capsys):
    run(dataset.root, "--source", "my eyes", "--output", tmp_path / "codec", *SHORT)
    codec = load_codec(tmp_path / "codec")
    assert (codec.config.scale.kind, codec.config.unit, codec.config.channels) == ("fixed", "m", (2, 2, 2, 2, 4))
    assert sorted(path.name for path in (tmp_path / "codec").iterdir()) == [
        "config.json", "fit.json", "model.safetensors", "report.png"]  # fmt: skip
    numbers = json.loads((tmp_path / "codec" / "fit.json").read_text())
    assert (numbers["camera"], numbers["episodes_fitted"], numbers["held_out"]["num_frames"]) == ("front", 4, 6)
    assert numbers["settings"]["steps"] == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "6 held-out frames" in said
    assert "of 128, perplexity" in said
    assert " mm" in said
    assert not list(tmp_path.glob(".*"))


def test_scales_that_are_asked_for(dataset, tmp_path: Path):
    run(dataset.root, "--source", "x", "--output", tmp_path / "a", *SHORT, "--low", 0.1, "--high", 0.9)
    scale = load_codec(tmp_path / "a").config.scale
    assert (scale.low, scale.high) == (0.1, 0.9)
    wrist = ("--scale", "frame", "--camera", "wrist")
    run(dataset.root, "--source", "x", "--output", tmp_path / "b", *SHORT, *wrist)
    assert load_codec(tmp_path / "b").config.scale.kind == "frame"


def test_a_stopped_fit_goes_on(dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(dataset.root, "--source", "x", "--output", tmp_path / "whole", *SHORT)
    step, steps = CodecFit.step, []

    def interrupted(fit: CodecFit) -> np.ndarray:
        steps.append(fit.step_index)
        if steps == [0, 1, 2]:
            raise KeyboardInterrupt
        return step(fit)

    monkeypatch.setattr(CodecFit, "step", interrupted)
    monkeypatch.setattr("molmoact2.evaluation.depth_fit_run.CHECKPOINT_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        run(dataset.root, "--source", "x", "--output", tmp_path / "parts", *SHORT)
    assert not (tmp_path / "parts").exists()
    run(dataset.root, "--source", "x", "--output", tmp_path / "parts", *SHORT)
    whole, parts = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert steps == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--low", 0.5), "has both limits"),
        (("--scale", "frame", "--low", 0.1, "--high", 0.9), "none otherwise"),
        (("--low", 0.9, "--high", 0.1), "below the upper one"),
        (("--steps", 0), "must be at least 1"),
        (("--measure", 0), "--measure must be at least 1"),
        (("--hold-out", 1), "from 2 to the 6 episodes of the dataset; got 1"),
        (("--hold-out", 7), "got 7"),
    ],
)
def test_mistakes(dataset, tmp_path: Path, arguments: tuple, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        run(dataset.root, "--source", "x", "--output", tmp_path / "codec", *SHORT, *arguments)
    assert not (tmp_path / "codec").exists()


def test_nothing_is_overwritten(dataset):
    with pytest.raises(ValueError, match="exists already"):
        run(dataset.root, "--source", "x", "--output", dataset.root, *SHORT)


def test_a_source_with_nan_is_named(dataset):
    def holey(dataset: LeRobotDataset, record, camera: str) -> np.ndarray:
        depth = brightness(dataset, record, camera)
        depth[1, 0, 0] = np.nan
        return depth

    source = CallableDepth(function=holey, unit="m", name="holey")
    bad = DepthEpisodes(dataset=dataset, source=source, camera="front", hold_out=3)
    with pytest.raises(ValueError, match=r"holey.*episode 0 holds NaN .*frame 1"):
        span_of(bad)


def test_episodes_are_held_out(dataset):
    chosen = episodes(dataset)
    assert chosen.fitted == [0, 1, 3, 4]
    assert chosen.held_out == [2, 5]
    (one,) = chosen.to_measure([5])
    np.testing.assert_array_equal(one.depth, brightness(dataset, dataset.episodes[5], "front"))
    assert one.images.shape == (3, 64, 64, 3)


def test_limits_from_the_data(dataset):
    chosen = episodes(dataset)
    low, high = span_of(chosen)
    depth = np.concatenate([chosen.depth(index) for index in chosen.fitted])
    assert depth.min() <= low < high <= depth.max() + 0.001
    scale = choose_scale("fixed", None, None, chosen)
    assert (scale.low, scale.high) == (low, high)
    assert choose_scale("episode", None, None, chosen).low is None


def test_spread():
    assert spread([3, 5, 7], 9) == [3, 5, 7]
    assert spread(list(range(100)), 3) == [0, 50, 99]
    assert spread([4], 3) == [4]


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(Fit, args=["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "95th percentile" in said
    assert "flicker" in said
