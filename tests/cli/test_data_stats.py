"""`molmoact2 data stats` prints and writes what numpy says about all frames together."""

import json

import numpy as np
import pytest

from molmoact2.cli.main import main
from molmoact2.data import DatasetSchema, DatasetWriter, Episode
from molmoact2.data.statistics import QUANTILES
from molmoact2.embodiments import SO_JOINTS


def record(root, lengths, *, offset=0.0, names=SO_JOINTS):
    """A dataset of noise around an offset; returns its states."""
    schema = DatasetSchema(
        fps=30, robot_type="so101", state_names=names, action_names=names, image_sizes={"front": (16, 16)}
    )
    rng, states = np.random.default_rng(len(lengths)), []
    with DatasetWriter(root, schema) as writer:
        for length in lengths:
            state = (offset + rng.normal(size=(length, len(names)))).astype(np.float32)
            images = {"front": np.zeros((length, 16, 16, 3), np.uint8)}
            writer.add_episode(Episode(images=images, state=state, action=-state, task="wave"))
            states.append(state)
    return np.concatenate(states).astype(np.float64)


def test_one_dataset(tmp_path, capsys):
    states = record(tmp_path / "one", [5, 7])
    main(["data", "stats", str(tmp_path / "one"), "--output", str(tmp_path / "stats.json")])
    shown = capsys.readouterr().out
    assert "12 frames of 1 dataset\n" in shown
    assert all(joint in shown for joint in SO_JOINTS)
    assert f"{np.quantile(states[:, 0], 0.99):.4g}" in shown
    assert "would be off" not in shown
    written = json.loads((tmp_path / "stats.json").read_text())
    assert written["sources"] == [str(tmp_path / "one")]
    assert written["state"]["names"] == list(SO_JOINTS)
    assert written["action"]["max"] == (-states).max(axis=0).tolist()


def test_several_datasets_are_pooled(tmp_path, capsys):
    prefixed = tuple(f"main_{joint}" for joint in SO_JOINTS)
    parts = [record(tmp_path / "a", [30]), record(tmp_path / "b", [5, 5], offset=9, names=prefixed)]
    whole = np.concatenate(parts)
    sources = [str(tmp_path / name) for name in ("a", "b")]
    main(["data", "stats", *sources, "--embodiment", "so100_so101_molmoact2", "--output", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())["state"]
    for name, q in QUANTILES.items():
        assert written[name] == np.quantile(whole, q, axis=0).tolist()
    assert written["count"] == [40]
    shown = capsys.readouterr().out
    counts, width = np.array([30, 10]), np.quantile(whole, 0.99, axis=0) - np.quantile(whole, 0.01, axis=0)
    off = {
        name: np.abs(
            counts @ np.stack([np.quantile(part, q, axis=0) for part in parts]) / 40 - np.quantile(whole, q, axis=0)
        ) / width
        for name, q in QUANTILES.items()
    }  # fmt: skip
    worst = max(off, key=lambda name: off[name].max())
    assert f"off by up to {off[worst].max():.1%} of q99 - q01 ({worst} of {SO_JOINTS[off[worst].argmax()]})" in shown


def test_what_differs_is_not_pooled(tmp_path, capsys):
    record(tmp_path / "a", [3])
    record(tmp_path / "b", [3], names=("hip", "knee"))
    with pytest.raises(SystemExit) as stop:
        main(["data", "stats", str(tmp_path / "a"), str(tmp_path / "b")])
    assert stop.value.code == 2
    assert "--embodiment" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [([], "at least one dataset"), (["nowhere"], "neither a folder")])
def test_mistakes(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "stats", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
