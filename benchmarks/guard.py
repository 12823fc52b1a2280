"""What the safety guard changes about motion that is nominal, and what a tick of it takes.

python -m benchmarks.guard                                       the teacher of the simulated arm
python -m benchmarks.guard --dataset runs/nano-so101/data        its recorded episodes, disturbed ones included
python -m benchmarks.guard --checkpoint runs/nano-so101/checkpoint --seeds 40       a policy, with and without
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import tyro
from numpy.typing import NDArray

from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Reading
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_expert import So101Expert

LIMITS = MotionLimits.of(SO101_TABLETOP)
PERIOD_S = LIMITS.period_s
CHANGED = 0.01
"""Degrees or percent by which a command has to differ from its target to count."""

Chooser = Callable[[So101Env], Iterator[NDArray[np.floating]]]
"""Looks at the scene, and says the next actions."""


@dataclass(kw_only=True)
class Watched:
    """A guard in the mode "full" that counts what it changes."""

    guard: Guard = field(default_factory=lambda: Guard(LIMITS, mode=Mode.FULL))
    num_ticks: int = 0
    num_changed: int = 0
    largest: float = 0.0
    seconds: float = 0.0

    def begin(self, state: NDArray[np.float32]) -> None:
        """The arm rests at `state` [6] before its first action."""
        self.guard = Guard(LIMITS, mode=Mode.FULL)
        self.guard.admit(None, Reading(time_s=-PERIOD_S, state=state), -PERIOD_S)
        self.num_rows = 0

    def command(self, action: NDArray[np.floating], state: NDArray[np.float32]) -> NDArray[np.float32]:
        """[6] what the guard makes of an action."""
        now, began = self.num_rows * PERIOD_S, perf_counter()
        verdict = self.guard.admit(action, Reading(time_s=now, state=state), now)
        self.seconds += perf_counter() - began
        assert verdict.command is not None
        change = float(np.abs(verdict.command - action).max())
        self.num_rows += 1
        self.num_ticks += 1
        self.num_changed += change > CHANGED
        self.largest = max(self.largest, change)
        return verdict.command

    def __str__(self) -> str:
        share, tick_ms = self.num_changed / self.num_ticks, 1000 * self.seconds / self.num_ticks
        counts = f"{self.num_changed} of {self.num_ticks} commands changed ({share:.2%})"
        return f"{counts}, the most by {self.largest:.2f}; {tick_ms:.2f} ms per tick"


def play(environment: So101Env, choose: Chooser, watched: Watched | None) -> bool:
    """One episode, through a guard or without; returns whether it succeeded."""
    if watched is not None:
        watched.begin(environment.joint_state())
    step = 0
    while step < environment.max_steps:
        for action in choose(environment):
            outcome = environment.step(
                action if watched is None else watched.command(action, environment.joint_state())
            )
            step += 1
            if outcome.done or step == environment.max_steps:
                return outcome.success
    return False


def compare(choose: Chooser, seeds: range) -> tuple[Counter[str], Watched]:
    """The same episodes without and with a guard: successes of each, and what the guard changed."""
    environment, successes, watched = So101Env(), Counter[str](), Watched()
    for name, guard in (("without", None), ("with", watched)):
        for seed in seeds:
            for task in environment.tasks:
                environment.reset(seed=seed, task=task)
                successes[name] += play(environment, choose, guard)
    environment.close()
    return successes, watched


def teacher(environment: So101Env) -> Iterator[NDArray[np.floating]]:
    """The next action of the scripted teacher."""
    yield So101Expert(environment).action()


def policy(checkpoint: Path) -> Chooser:
    """The chunks of a checkpoint, with the same noise whenever the arm is in the same place."""
    from molmoact2 import load_policy

    model = load_policy(checkpoint, device="cpu", dtype="float32")
    return lambda environment: iter(model.act(environment.observe(), seed=0).actions)


def replay(dataset: Path, every: int) -> Watched:
    """Every so-and-so-many-th recorded episode through a guard that believes the recorded joints."""
    from molmoact2.data.datasets import open_dataset

    recorded, watched = open_dataset(dataset), Watched()
    ends = np.unique(recorded.episode_ends)
    for start, end in list(zip(np.append(0, ends), ends, strict=False))[::every]:
        watched.begin(recorded.states[start])
        for action, state in zip(recorded.actions[start:end], recorded.states[start:end], strict=True):
            watched.command(action, state)
    return watched


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Say what the guard changes."""

    dataset: Path | None = None
    """Recorded episodes of the simulated arm."""
    every: int = 7
    """Which of them to replay."""
    checkpoint: Path | None = None
    """A policy of the simulated arm."""
    seeds: int = 20

    def run(self) -> None:
        """Measure what was asked for; the teacher if nothing was."""
        if self.dataset is not None:
            print(f"recorded: {replay(self.dataset, self.every)}")
        if self.checkpoint is not None or self.dataset is None:
            choose = teacher if self.checkpoint is None else policy(self.checkpoint)
            successes, watched = compare(choose, range(90000, 90000 + self.seeds))
            print(f"{self.checkpoint or 'teacher'}: {watched}")
            print(
                f"successes without the guard {successes['without']}, with it {successes['with']} of {3 * self.seeds}"
            )


if __name__ == "__main__":
    tyro.cli(Measure, description=__doc__).run()
