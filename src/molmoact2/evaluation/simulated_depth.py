"""True depth of our own recordings: each episode is simulated once more, and its depth rendered.

A recording's ledger says from which task and seed every episode came. The expert then does again what it did, disturbed
as it was; that it is the same episode is checked on its states, which must agree with the dataset bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from molmoact2 import envs
from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.sources import Unit
from molmoact2.envs.perturbation import Perturbation
from molmoact2.evaluation import recording
from molmoact2.evaluation.experts import Expert, make_expert
from molmoact2.evaluation.ledger import EPISODES_FILE, Record, read_protocol, read_records
from molmoact2.evaluation.recording import LEDGER_DIRECTORY, disturbance, is_perturbed
from molmoact2.evaluation.rollout import run_episode, undisturbed
from molmoact2.tokens.reading import read_field
from molmoact2.types import ActionChunk, Environment, Observation, Outcome

ELSEWHERE = "Take the depth from another source, such as anything."


class DepthEnvironment(Environment, Protocol):
    """An environment that knows the depth of its images."""

    def observe_depth(self, camera: str) -> NDArray[np.float32]:
        """[height, width] metres along the camera's axis."""
        ...


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What simulates recorded episodes again."""

    environment: DepthEnvironment
    expert: Expert
    open_perturbation: Callable[[int], recording.Perturbation]
    """Makes the perturbation of the episode with this seed."""
    perturbed_fraction: float
    """How many of the recorded episodes are perturbed."""


class SimulatedDepth:
    """The depth source of a recording of ours: metres, rendered by its simulator."""

    name = "simulator"
    unit: Unit = "m"

    def __init__(self, simulation: Simulation, attempts: Sequence[Record]) -> None:
        """`attempts` says from which task and seed each episode of the recording came, in order."""
        self._simulation, self._attempts = simulation, attempts

    def episode(self, dataset: LeRobotDataset, record: EpisodeRecord, camera: str) -> NDArray[np.float32]:
        """Depth [frames, height, width] of one camera. Raises ValueError unless it is the recorded episode again."""
        attempt, simulation = self._attempts[record.episode_index], self._simulation
        watch = DepthWatch(simulation.environment, camera)
        perturbed = is_perturbed(attempt["seed"], simulation.perturbed_fraction)
        perturbation = simulation.open_perturbation(attempt["seed"])
        run_episode(
            simulation.environment,
            simulation.expert,
            task=attempt["task"],
            seed=attempt["seed"],
            disturb=disturbance(simulation.expert, perturbation) if perturbed else undisturbed,
            observer=watch,
        )
        states = np.stack(watch.states).astype(np.float32)
        recorded = dataset.states[record.from_index : record.to_index]
        require(
            np.array_equal(states, recorded),
            f"Episode {record.episode_index} of {dataset.root}, simulated again ({attempt['task']!r}, seed "
            f"{attempt['seed']}), is another: {_difference(states, recorded)}. The simulator, the expert or the "
            f"machine is not the one that recorded it. Record it again, or take another source, such as anything.",
        )
        return np.stack(watch.depth)


class DepthWatch:
    """Observer that keeps depth and state at every frame of an episode whose policy plans one row at a time."""

    def __init__(self, environment: DepthEnvironment, camera: str) -> None:
        self.environment, self.camera = environment, camera
        self.depth: list[NDArray[np.float32]] = []
        self.states: list[NDArray[np.floating]] = []

    def planned(self, _step: int, observation: Observation, _chunk: ActionChunk, /) -> None:
        """Keep what is seen now."""
        self.states.append(observation.state)
        self.depth.append(self.environment.observe_depth(self.camera))

    def stepped(self, _step: int, _executed: NDArray[np.floating], _outcome: Outcome, /) -> None:
        """The step shows in the next frame."""


def recorded_attempts(dataset: LeRobotDataset) -> list[Record]:
    """From which task and seed each episode of a recording came; ValueError when its ledger does not say."""
    folder = dataset.root / LEDGER_DIRECTORY
    fix = f"Only what `molmoact2 record` recorded can be simulated again. {ELSEWHERE}"
    require((folder / EPISODES_FILE).is_file(), f"{dataset.root} has no ledger of a recording ({folder}). {fix}")
    attempts = [attempt for attempt in read_records(folder / EPISODES_FILE) if attempt["success"]]
    steps, lengths = [attempt["steps"] for attempt in attempts], [record.length for record in dataset.episodes]
    wrong = [index for index, pair in enumerate(zip(steps, lengths, strict=False)) if len(set(pair)) > 1]
    problem = f"{len(steps)} recorded episodes for {len(lengths)}; of other lengths are the episodes {wrong[:5]}"
    require(steps == lengths, f"The ledger {folder} is out of step with its dataset: {problem}. {fix}")
    return attempts


def open_simulated_depth(dataset: LeRobotDataset) -> SimulatedDepth:
    """Open the simulator that a dataset was recorded with.

    Raises:
        ValueError: the dataset is no recording of ours, or its simulator is not known here.
        ImportError: the simulator is not installed; the message says how to install it.
    """
    attempts, file = recorded_attempts(dataset), str(dataset.root / LEDGER_DIRECTORY)
    protocol = read_protocol(dataset.root / LEDGER_DIRECTORY)
    name = read_field(protocol, "environment", str, file)
    environment = envs.make(name, image_size=dataset.image_size(dataset.cameras[0]), cameras=())
    simulation = Simulation(
        environment=cast(DepthEnvironment, environment),
        expert=make_expert(name, environment),
        open_perturbation=Perturbation,
        perturbed_fraction=read_field(protocol, "perturbed_fraction", float, file),
    )
    return SimulatedDepth(simulation, attempts)


def _difference(states: NDArray[np.float32], recorded: NDArray[np.float32]) -> str:
    """Where two runs of states part."""
    both = min(len(states), len(recorded))
    other = np.flatnonzero((states[:both] != recorded[:both]).any(axis=1))
    frame = [*other.tolist(), both][0]
    return f"{len(states)} frames in place of {len(recorded)}, and the states part at frame {frame}"
