"""LIBERO-Object: how long its simulator takes, how often the scripted expert succeeds, and how fresh scenes are spread.

speed     in CPU time summed over threads, which others on the machine change little; the simulator as its authors run
          it renders both cameras at every step
expert    all official initial states of every task; nothing is rendered, because the expert does not look
scenes    where things and the arm start, in the official states and in as many fresh ones again, four times
"""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table
from molmoact2.envs.libero.environment import LiberoEnv
from molmoact2.envs.libero.expert import LiberoObjectExpert
from molmoact2.envs.libero.protocol import PAPER, SMALL
from molmoact2.evaluation.statistics import wilson_interval

NUM_OFFICIAL = 50
STEPS_PER_CHUNK = 10
STAY = np.array((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0))
ARM = slice(1, 8)


def benchmark(settings: Settings) -> None:
    """Print the three tables."""
    measure_speed(settings)
    measure_expert(num_episodes=1 if settings.smoke else NUM_OFFICIAL, num_tasks=1 if settings.smoke else None)
    compare_scenes(num_tasks=1 if settings.smoke else None)


def measure_speed(settings: Settings) -> None:
    """A step, a look, a reset, and a chunk of steps with one look."""
    environment, small = LiberoEnv("libero_object", protocol=PAPER), LiberoEnv("libero_object", protocol=SMALL)
    official = open_official(environment)
    first, second = environment.tasks[:2]
    environment.reset(seed=0, task=first)
    small.reset(seed=0, task=first)

    def chunk() -> None:
        small.observe()
        for _ in range(STEPS_PER_CHUNK):
            small.step(STAY)

    calls = {
        "one control step": partial(environment.step, STAY),
        "one control step, as the simulator's authors run it (128 x 128)": partial(official.step, STAY),
        "a look, two cameras of 128 x 128": small.observe,
        "a look, two cameras of 360 x 360": environment.observe,
        f"{STEPS_PER_CHUNK} control steps and a look": chunk,
        "a new episode of the same task, 50 settling steps": partial(small.reset, seed=1, task=first),
    }
    seconds = in_turns(calls, settings, time.process_time)
    begin = time.process_time()
    small.reset(seed=0, task=second)
    small.observe()
    seconds["a new episode of another task and a first look"] = time.process_time() - begin
    rows = [[name, milliseconds(value)] for name, value in seconds.items()]
    print_table("LIBERO's simulator", ["what", "CPU ms"], rows)
    for opened in (environment, small, official):
        opened.close()


def open_official(environment: LiberoEnv):
    """The first task as LIBERO's own class runs it."""
    from libero.libero.envs import OffScreenRenderEnv

    task = environment.suite[environment.tasks[0]]
    official = OffScreenRenderEnv(bddl_file_name=str(task.description), camera_heights=128, camera_widths=128)
    official.reset()
    official.set_init_state(task.official_states()[0])
    return official


@dataclass(frozen=True, kw_only=True)
class Tries:
    """The expert's episodes of one task."""

    steps: tuple[int, ...]
    """Of those that it solved."""
    total: int

    def row(self, name: str) -> list[str]:
        """Successes, their rate with its interval, and how long they took."""
        low, high = wilson_interval(len(self.steps), self.total)
        rate = f"{len(self.steps) / self.total:.0%} ({low:.0%} to {high:.0%})"
        middle, longest = (f"{np.median(self.steps):.0f}", f"{max(self.steps)}") if self.steps else ("-", "-")
        return [name, f"{len(self.steps)} / {self.total}", rate, middle, longest]


def measure_expert(*, num_episodes: int, num_tasks: int | None) -> None:
    """The expert on the official initial states under the paper's protocol."""
    environment, rows, everything = LiberoEnv("libero_object", protocol=PAPER), [], []
    expert = LiberoObjectExpert(environment)
    for task in environment.tasks[:num_tasks]:
        lengths = [solve(environment, expert, task, seed) for seed in range(num_episodes)]
        steps = tuple(length for length in lengths if length is not None)
        rows.append(Tries(steps=steps, total=num_episodes).row(environment.suite[task].instruction))
        everything += lengths
    environment.close()
    solved = tuple(length for length in everything if length is not None)
    rows.append(Tries(steps=solved, total=len(everything)).row("all"))
    print_table("The expert", ["task", "solved", "rate, 95 % interval", "steps", "longest"], rows)


def solve(environment: LiberoEnv, expert: LiberoObjectExpert, task: str, seed: int) -> int | None:
    """Steps of the expert's episode; None where it does not succeed."""
    environment.reset(seed=seed, task=task)
    steps = range(1, environment.max_steps + 1)
    return next((step for step in steps if environment.step(expert.action()).success), None)


def compare_scenes(*, num_tasks: int | None) -> None:
    """Where things stand and how the arm is held, official and fresh."""
    environment, rows = LiberoEnv("libero_object", protocol=SMALL.with_fresh_scenes()), []
    for task in environment.tasks[:num_tasks]:
        environment.reset(seed=0, task=task)
        known = environment.scene.task.official_states()
        fresh = np.stack([environment.initial_state(seed) for seed in range(4 * len(known))])
        things = [column for start in range(10, 10 + 7 * 7, 7) for column in (start, start + 1)]
        rows.append(
            [environment.suite[task].instruction, *compared(known, fresh, things), *compared(known, fresh, ARM)]
        )
    environment.close()
    columns = ["task", "means apart, mm", "spread, mm", "fresh", "means apart, mrad", "spread, mrad", "fresh"]
    print_table("Things' places and the arm's joints in fresh scenes", columns, rows)


def compared(known: NDArray[np.float64], fresh: NDArray[np.float64], columns: list[int] | slice) -> list[str]:
    """The largest difference of means, and the mean standard deviation of both, in thousandths."""
    known, fresh = 1000 * known[:, columns], 1000 * fresh[:, columns]
    apart = np.abs(known.mean(axis=0) - fresh.mean(axis=0)).max()
    return [f"{number:.1f}" for number in (apart, known.std(axis=0).mean(), fresh.std(axis=0).mean())]


if __name__ == "__main__":
    measure(benchmark, __doc__)
