"""Demonstrations: a scripted expert's episodes become a LeRobot dataset.

What is recorded is what the expert wanted at every frame; in perturbed episodes something else was executed, so that
the recording shows how to come back. Episodes that the expert fails are counted, not written, and made up for by
further seeds, until every task has the wanted number.

    OUTPUT/                    the dataset (LeRobot v3.0)
    OUTPUT/recording/          the ledger: protocol.json, and episodes.jsonl with every attempt

An attempt is noted before its episode is written, so after a crash the ledger is at most ahead; what it is ahead by is
recorded again. Episodes are written in the order of their seeds, however many workers simulate them: a recording that
was killed and continued is the one that never stopped.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.files import INFO_PATH
from molmoact2.data.schema import DatasetSchema, Episode
from molmoact2.data.writer import DatasetWriter
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.envs.labels import LabelledEnvironment, label_row
from molmoact2.evaluation.experts import Expert
from molmoact2.evaluation.film import named_images
from molmoact2.evaluation.labels import label_columns
from molmoact2.evaluation.ledger import Record, open_ledger
from molmoact2.evaluation.rollout import Disturb, run_episode, undisturbed
from molmoact2.evaluation.workers import run_in_order
from molmoact2.types import ActionChunk, Image, Observation, Outcome

LEDGER_DIRECTORY = "recording"
MOST_ATTEMPTS_PER_EPISODE = 3
"""An expert that fails more than two of three times is broken, not unlucky."""


class Perturbation(Protocol):
    """Disturbs the actions of one episode."""

    def disturb(self, action: NDArray[np.floating], *, delicate: bool) -> NDArray[np.floating]:
        """The action to execute in place of `action`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is recorded; picklable, so that it can be sent to workers."""

    open_environment: Callable[[], LabelledEnvironment]
    open_expert: Callable[[LabelledEnvironment], Expert]
    open_perturbation: Callable[[int], Perturbation]
    """Makes the perturbation of the episode with this seed."""
    tasks: tuple[str, ...]
    num_episodes: int
    """Recorded episodes per task."""
    perturbed_fraction: float = 0.5
    """How many of the episodes are perturbed, 0 to 1; the seed decides which."""
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.num_episodes < 1:
            raise ValueError(f"episodes must be at least 1 per task, got {self.num_episodes}.")
        if not self.tasks:
            raise ValueError("A recording needs at least one task, got none.")
        if not 0 <= self.perturbed_fraction <= 1:
            raise ValueError(f"perturb is a fraction of the episodes, 0 to 1, got {self.perturbed_fraction}.")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One episode that was simulated."""

    record: Record
    episode: Episode | None
    """What was recorded; None when the expert failed."""


class Recorder:
    """Observer that keeps the frames of an episode whose policy plans one row at a time."""

    def __init__(self, environment: LabelledEnvironment) -> None:
        self.environment = environment
        self.images: list[dict[str, Image]] = []
        self.observations: list[Observation] = []
        self.actions: list[NDArray[np.float32]] = []
        self.labels: list[dict[str, NDArray[Any]]] = []

    def planned(self, _step: int, observation: Observation, chunk: ActionChunk, /) -> None:
        """Keep what was seen, what was wanted, and where things are."""
        self.observations.append(observation)
        self.images.append(named_images(observation))
        self.actions.append(chunk.actions[0])
        self.labels.append(label_row(self.environment))

    def stepped(self, _step: int, _executed: NDArray[np.floating], _outcome: Outcome, /) -> None:
        """What was executed is not recorded."""

    def episode(self) -> Episode:
        """The frames so far."""
        return Episode(
            images={camera: np.stack([images[camera] for images in self.images]) for camera in self.images[0]},
            state=np.stack([o.state for o in self.observations]).astype(np.float32),
            action=np.stack(self.actions).astype(np.float32),
            task=self.observations[0].instruction,
            extras={name: np.stack([row[name] for row in self.labels]) for name in self.labels[0]},
        )


def record_dataset(
    recording: Recording, output: Path, protocol: dict[str, Any], *, num_workers: int = 1
) -> Iterator[list[Record]]:
    """Record the episodes that `output` lacks, yielding all attempts so far: those found, then after each attempt.

    Raises ValueError when `output` holds another dataset, a recording of another protocol, or when the expert cannot
    do a task.
    """
    if not (output / INFO_PATH).exists():
        environment = recording.open_environment()
        DatasetWriter(output, dataset_schema(environment))
        environment.close()
    with open_ledger(output / LEDGER_DIRECTORY, protocol) as ledger, DatasetWriter.resume(output) as writer:
        ledger.keep(written_attempts(ledger.records, writer.num_episodes))
        recorded = Counter(record["task"] for record in ledger.records if record["success"])
        attempted = {(record["task"], record["seed"]) for record in ledger.records}
        yield ledger.records
        jobs = wanted_jobs(recording, attempted, recorded)
        for attempt in run_in_order(partial(open_work, recording), jobs, num_workers=num_workers):
            task = attempt.record["task"]
            if recorded[task] >= recording.num_episodes:
                continue
            ledger.append(attempt.record)
            if attempt.episode:
                writer.add_episode(attempt.episode)
                recorded[task] += 1
            yield ledger.records


def dataset_schema(environment: LabelledEnvironment) -> DatasetSchema:
    """What the recordings of an environment are made of."""
    return DatasetSchema.for_embodiment(
        EMBODIMENTS[environment.embodiment],
        image_size=environment.image_size,
        extras=label_columns(environment.cameras, environment.things),
    )


def written_attempts(records: list[Record], num_episodes: int) -> list[Record]:
    """The attempts up to the last of `num_episodes` written episodes; failures before the next success count."""
    successes = (index for index, record in enumerate(records) if record["success"])
    first_unwritten = next((index for number, index in enumerate(successes) if number == num_episodes), len(records))
    return records[:first_unwritten]


def wanted_jobs(
    recording: Recording, attempted: set[tuple[str, int]], recorded: Counter[str]
) -> Iterator[tuple[str, int]]:
    """Yield (task, seed) in the order of seeds, for the tasks that lack episodes in `recorded` at that moment."""
    for seed in count(recording.first_seed):
        lacking = [task for task in recording.tasks if recorded[task] < recording.num_episodes]
        if not lacking:
            return
        if seed - recording.first_seed >= MOST_ATTEMPTS_PER_EPISODE * (recording.num_episodes + 2):
            raise ValueError(
                f"The expert cannot do {', '.join(map(repr, lacking))}: after {seed - recording.first_seed} seeds "
                f"there are {dict(recorded)} of {recording.num_episodes} episodes. Leave the task out, or perturb less."
            )
        yield from ((task, seed) for task in lacking if (task, seed) not in attempted)


def open_work(recording: Recording) -> Callable[[tuple[str, int]], Attempt]:
    """Open the environment and the expert, and return what attempts one episode with them."""
    environment = recording.open_environment()
    return partial(attempt_episode, recording, environment, recording.open_expert(environment))


def attempt_episode(
    recording: Recording, environment: LabelledEnvironment, expert: Expert, job: tuple[str, int]
) -> Attempt:
    """Let the expert do one task of one seed."""
    task, seed = job
    perturbed = is_perturbed(seed, recording.perturbed_fraction)
    disturb = disturbance(expert, recording.open_perturbation(seed)) if perturbed else undisturbed
    recorder = Recorder(environment)
    result = run_episode(environment, expert, task=task, seed=seed, disturb=disturb, observer=recorder)
    record: Record = {
        "task": task,
        "seed": seed,
        "instruction": result.instruction,
        "success": result.success,
        "failure": result.failure,
        "steps": result.num_steps,
        "perturbed": perturbed,
    }
    return Attempt(record=record, episode=recorder.episode() if result.success else None)


def disturbance(expert: Expert, perturbation: Perturbation) -> Disturb:
    """What is executed in place of what the expert wants: less far off where that would spoil its work."""
    return lambda action: perturbation.disturb(action, delicate=expert.delicate)


def is_perturbed(seed: int, fraction: float) -> bool:
    """Whether the episode of this seed is among the perturbed `fraction`."""
    return bool(np.random.default_rng((seed, 0)).random() < fraction)
