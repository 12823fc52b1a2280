"""Depth of recordings by simulating them again: the same episode, or none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from worlds import LineExpert, LineWorld, Nudge

from molmoact2.data import LeRobotDataset
from molmoact2.evaluation.experts import make_expert
from molmoact2.evaluation.recording import Recording, record_dataset
from molmoact2.evaluation.simulated_depth import (
    SimulatedDepth,
    Simulation,
    open_simulated_depth,
    recorded_attempts,
)

OURS = Path(__file__).parents[2] / "runs" / "nano-so101" / "data"
DUMPED = Path(__file__).parents[2] / "runs" / "think" / "depth_u16.npy"


class DeepLine(LineWorld):
    """A line whose depth says where the point is and which camera looks."""

    def observe_depth(self, camera):
        return np.full(self.image_size, 2 + self.place[0] + {"front": 0, "wrist": 10}[camera], np.float32)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("line") / "data"
    recording = Recording(
        open_environment=LineWorld,
        open_expert=LineExpert,
        open_perturbation=Nudge,
        tasks=("left", "right"),
        num_episodes=4,
        perturbed_fraction=0.5,
    )
    list(record_dataset(recording, root, {"perturbed_fraction": 0.5}))
    return root


def simulated(root, *, perturbed_fraction=0.5, open_perturbation=Nudge):
    world = DeepLine()
    simulation = Simulation(
        environment=world,
        expert=LineExpert(world),
        open_perturbation=open_perturbation,
        perturbed_fraction=perturbed_fraction,
    )
    return SimulatedDepth(simulation, recorded_attempts(LeRobotDataset(root)))


@pytest.mark.parametrize(("camera", "offset"), [("front", 2), ("wrist", 12)])
def test_every_frame_has_the_depth_of_its_moment(recorded, camera, offset):
    dataset, source = LeRobotDataset(recorded), simulated(recorded)
    assert (source.name, source.unit) == ("simulator", "m")
    for record in reversed(dataset.episodes):
        depth = source.episode(dataset, record, camera)
        assert depth.shape == (record.length, 16, 16)
        assert depth.dtype == np.float32
        places = dataset.states[record.from_index : record.to_index, 0]
        np.testing.assert_allclose(depth[:, 3, 5], offset + places, atol=1e-6)


@pytest.mark.parametrize("changes", [{"perturbed_fraction": 0.0}, {"open_perturbation": lambda seed: Nudge(seed + 1)}])
def test_another_episode_is_refused(recorded, changes):
    dataset, source = LeRobotDataset(recorded), simulated(recorded, **changes)

    def all_of_them():
        for record in dataset.episodes:
            source.episode(dataset, record, "front")

    with pytest.raises(ValueError, match=r"simulated again \('\w+', seed \d\), is another: \d+ frames in place of"):
        all_of_them()


def test_a_state_that_differs_in_its_last_bit_is_refused(recorded):
    dataset, source = LeRobotDataset(recorded), simulated(recorded)
    dataset.states[3, 1] = np.nextafter(dataset.states[3, 1], np.float32(1))
    with pytest.raises(ValueError, match="the states part at frame 3"):
        source.episode(dataset, dataset.episodes[0], "front")
    source.episode(dataset, dataset.episodes[1], "front")


def test_only_recordings_of_ours(recorded, tmp_path):
    root = shutil.copytree(recorded, tmp_path / "data")
    ledger = root / "recording" / "episodes.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="out of step with its dataset: 7 recorded episodes for 8"):
        recorded_attempts(LeRobotDataset(root))
    other = [json.dumps(json.loads(line) | {"steps": 3}) + "\n" for line in lines]
    ledger.write_text("".join(other))
    with pytest.raises(ValueError, match=r"of other lengths are the episodes \[0, 1"):
        recorded_attempts(LeRobotDataset(root))
    shutil.rmtree(root / "recording")
    with pytest.raises(ValueError, match=r"has no ledger.*Only what `molmoact2 record` recorded"):
        recorded_attempts(LeRobotDataset(root))


def test_the_protocol_names_the_simulator(recorded, tmp_path):
    root = shutil.copytree(recorded, tmp_path / "data")
    with pytest.raises(ValueError, match="lacks the field 'environment'"):
        open_simulated_depth(LeRobotDataset(root))
    (root / "recording" / "protocol.json").write_text('{"environment": "moon", "perturbed_fraction": 0.5}')
    with pytest.raises(ValueError, match="Unknown environment 'moon'"):
        open_simulated_depth(LeRobotDataset(root))


def test_the_tabletop(tmp_path):
    """A recording of the real simulator, and the depth that an independent run of it sees."""
    pytest.importorskip("molmoact2.envs.headless", reason="the extra sim is not installed", exc_type=ImportError)
    from molmoact2 import envs
    from molmoact2.evaluation.setup import make_recording

    options = {"image_size": 32, "tasks": ("push",), "num_episodes": 2, "perturbed_fraction": 0.5, "first_seed": 0}
    recording, protocol = make_recording("so101", **options)
    list(record_dataset(recording, tmp_path / "data", protocol))
    dataset = LeRobotDataset(tmp_path / "data")
    source = open_simulated_depth(dataset)
    depth = source.episode(dataset, dataset.episodes[0], "front")
    assert depth.shape == (dataset.episodes[0].length, 32, 32)
    world = envs.make("so101", image_size=(32, 32), cameras=())
    attempt = recorded_attempts(dataset)[0]
    world.reset(seed=attempt["seed"], task=attempt["task"])
    make_expert("so101", world)
    np.testing.assert_array_equal(depth[0], world.observe_depth("front"))
    np.testing.assert_array_equal(source.episode(dataset, dataset.episodes[0], "front"), depth)
    assert not np.array_equal(depth[0], depth[-1])


@pytest.mark.skipif(not (OURS.exists() and DUMPED.exists()), reason="no recording with dumped depth on this machine")
def test_our_recording():
    pytest.importorskip("molmoact2.envs.headless", reason="the extra sim is not installed", exc_type=ImportError)
    dataset, dumped = LeRobotDataset(OURS), np.load(DUMPED, mmap_mode="r")
    source = open_simulated_depth(dataset)
    for index in (0, 2_699):
        record = dataset.episodes[index]
        depth = source.episode(dataset, record, "front")
        tenths_mm = np.round(np.minimum(depth, 6.5) * 1e4).astype(np.uint16)
        np.testing.assert_array_equal(tenths_mm, dumped[record.from_index : record.to_index])
