"""How often a policy succeeds: episodes on seeds nobody trained on, the same ones for every policy.

The n-th episode of a task has seed `FIRST_SEED + n`, for every policy: two policies meet the same scenes, and their
results can be compared pair by pair. Recordings take their seeds from 0 on, far below.

    OUTPUT/protocol.json     what is measured: policy, environment, steps
    OUTPUT/episodes.jsonl    one line per finished episode; a killed run continues where it was
    OUTPUT/films/            video, plans and camera images of the first episodes of each task
"""

import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.evaluation.film import Film, FilmedEnvironment
from molmoact2.evaluation.ledger import Ledger, Record, open_ledger
from molmoact2.evaluation.policies import PolicySource
from molmoact2.evaluation.rollout import UNOBSERVED, EpisodeResult, run_episode
from molmoact2.evaluation.thoughts import Thoughts
from molmoact2.evaluation.workers import run_in_order
from molmoact2.types import Environment

FIRST_SEED = 1_000_000
FILMS_DIRECTORY = "films"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is run; picklable, so that it can be sent to workers."""

    open_environment: Callable[[], FilmedEnvironment]
    open_policy: Callable[[Environment], PolicySource]
    tasks: tuple[str, ...]
    num_episodes: int
    """Episodes per task."""
    num_films: int = 0
    """Episodes per task that are filmed, the first ones."""
    first_seed: int = FIRST_SEED

    def __post_init__(self) -> None:
        if self.num_episodes < 1:
            raise ValueError(f"episodes must be at least 1 per task, got {self.num_episodes}.")
        if not self.tasks:
            raise ValueError("A benchmark needs at least one task, got none.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One episode to run."""

    task: str
    seed: int
    film: Path | None
    """Where the film goes, without suffix; None for an episode that is not filmed."""


def run_benchmark(
    benchmark: Benchmark, output: Path, protocol: dict[str, Any], *, num_workers: int = 1
) -> Iterator[list[Record]]:
    """Run the episodes that `output` lacks, yielding all records so far: first those found, then after each episode.

    Raises ValueError when `output` holds a run of another protocol.
    """
    with open_ledger(output, protocol) as ledger:
        (output / FILMS_DIRECTORY).mkdir(exist_ok=True)
        yield ledger.records
        jobs = missing_jobs(benchmark, ledger, output / FILMS_DIRECTORY)
        for record in run_in_order(partial(open_work, benchmark), jobs, num_workers=num_workers):
            ledger.append(record)
            yield ledger.records


def missing_jobs(benchmark: Benchmark, ledger: Ledger, films: Path) -> list[Job]:
    """The episodes that are not in the ledger, one of each task in turn."""
    finished = {(record["task"], record["seed"]) for record in ledger.records}
    return [
        Job(task=task, seed=seed, film=films / f"{task}-{seed}" if index < benchmark.num_films else None)
        for index in range(benchmark.num_episodes)
        for task in benchmark.tasks
        if (task, seed := benchmark.first_seed + index) not in finished
    ]


def open_work(benchmark: Benchmark) -> Callable[[Job], Record]:
    """Load the environment and the policy, and return what runs one episode with them."""
    environment = benchmark.open_environment()
    return partial(run_job, environment, benchmark.open_policy(environment), describe_machine())


def run_job(environment: FilmedEnvironment, source: PolicySource, machine: Record, job: Job) -> Record:
    """Run one episode and say how it went."""
    film = Film(environment, source.judge) if job.film else None
    thoughts = Thoughts(film or UNOBSERVED)
    result = run_episode(
        environment,
        source.start(job.seed),
        task=job.task,
        seed=job.seed,
        num_action_steps=source.num_action_steps,
        observer=thoughts,
    )
    if film and job.film:
        film.save(job.film)
    film_name = job.film.name if job.film else None
    return {**describe_episode(result), **thoughts.record, "film": film_name, "machine": machine}


def describe_episode(result: EpisodeResult) -> Record:
    """The record of an episode: its result, and the seconds its plans took, with their percentiles."""
    stages = dict.fromkeys(stage for timing in result.stage_seconds for stage in timing)
    medians = {stage: float(np.median([t[stage] for t in result.stage_seconds if stage in t])) for stage in stages}
    return {
        "task": result.task,
        "seed": result.seed,
        "instruction": result.instruction,
        "success": result.success,
        "failure": result.failure,
        "steps": result.num_steps,
        "control_hz": result.control_hz,
        "actions_per_plan": result.num_action_steps,
        "plans": len(result.plan_seconds),
        "plan_seconds": {f"p{p}": float(np.percentile(result.plan_seconds, p)) for p in (50, 95, 100)},
        "each_plan_seconds": [round(seconds, 6) for seconds in result.plan_seconds],
        "stage_seconds": medians,
    }


def describe_machine() -> Record:
    """What computed the episodes: packages with versions, and the processor."""
    packages = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "processor": processor_name(),
        "python": platform.python_version(),
        "packages": {name: packages[name] for name in ("molmoact2", "mujoco", "numpy", "torch") if name in packages},
    }


def processor_name() -> str:
    """The processor as the system calls it."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()
