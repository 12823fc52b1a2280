"""Run a benchmark for people: a progress bar with the success so far, and all records in the end."""

from collections.abc import Callable, Sequence
from pathlib import Path

from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.evaluation.benchmark import run_benchmark
from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.progress import follow
from molmoact2.evaluation.setup import make_benchmark
from molmoact2.evaluation.summary import summarise


def measure(
    choice: PolicyChoice,
    output: Path,
    *,
    tasks: Sequence[str],
    num_episodes: int,
    num_workers: int,
    num_films: int = 0,
    variations: Variations = NOMINAL,
    announce: Callable[[Record], str] | None = None,
) -> list[Record]:
    """Run the episodes (`num_episodes` per task) that `output` lacks; return those of all of them.

    `variations` are those of the scenes, none by default. `announce` says what is printed about each episode when it
    ends, nothing by default.

    Raises ValueError for an unknown policy or task, or when `output` holds a run of another protocol.
    """
    benchmark, protocol = make_benchmark(
        choice, tasks=tasks, num_episodes=num_episodes, num_films=num_films, variations=variations
    )
    return follow(
        run_benchmark(benchmark, output, protocol, num_workers=num_workers),
        title=choice.label,
        total=num_episodes * len(benchmark.tasks),
        count=len,
        describe=lambda records: summarise(records).sentence,
        announce=announce,
    )
