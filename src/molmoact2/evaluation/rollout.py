"""The only episode loop: a policy looks, plans a chunk, the robot executes some rows of it, and the policy looks again.

    step      0        4        8        12
    look      o        o        o        o          images are rendered here and nowhere else
    plan      |--------|                            horizon rows are planned, here 8
              |====|   |--------|                   num_action_steps rows are executed, here 4
                   |====|

Recording, benchmarks, films and the demo differ only in the policy they pass and in the observer they attach.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.types import ActionChunk, Environment, NoActionError, Observation, Outcome, Policy

OUT_OF_TIME = "out of time"
"""The failure of an episode that used all its steps."""
NO_ACTION = "no action"
"""How the failure begins of an episode in which the policy had no action to give."""

Disturb: TypeAlias = Callable[[NDArray[np.floating]], NDArray[np.floating]]
"""Turns a commanded action [action_dim] into the one that is executed."""


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """What happened in one episode."""

    task: str
    seed: int
    instruction: str
    success: bool
    failure: str | None
    """Why it did not succeed; None when it did."""
    num_steps: int
    """Control steps that were executed."""
    control_hz: float
    num_action_steps: int
    """Rows of each chunk that were to be executed before the policy looked again."""
    plan_seconds: tuple[float, ...]
    """Wall-clock time of each plan, in order."""
    stage_seconds: tuple[Mapping[str, float], ...]
    """For each plan, the seconds of its stages as the policy reported them; empty when it reported none."""

    @property
    def simulated_seconds(self) -> float:
        """How long the episode took the robot."""
        return self.num_steps / self.control_hz


class Observer(Protocol):
    """Watches an episode: a recorder, a film, a live display."""

    def planned(self, step: int, observation: Observation, chunk: ActionChunk, /) -> None:
        """The policy looked before control step `step` and planned `chunk`."""
        ...

    def stepped(self, step: int, executed: NDArray[np.floating], outcome: Outcome, /) -> None:
        """Control step `step` executed the action `executed` [action_dim]."""
        ...


class Unobserved:
    """The observer of an episode that nobody watches."""

    def planned(self, _step: int, _observation: Observation, _chunk: ActionChunk, /) -> None:
        """Ignore the plan."""

    def stepped(self, _step: int, _executed: NDArray[np.floating], _outcome: Outcome, /) -> None:
        """Ignore the step."""


UNOBSERVED = Unobserved()


def undisturbed(action: NDArray[np.floating]) -> NDArray[np.floating]:
    """Execute what was commanded."""
    return action


def run_episode(
    environment: Environment,
    policy: Policy,
    *,
    task: str,
    seed: int,
    num_action_steps: int | None = None,
    disturb: Disturb = undisturbed,
    observer: Observer = UNOBSERVED,
) -> EpisodeResult:
    """Reset the environment to `task` and `seed` and let the policy act until the episode is over.

    `num_action_steps` rows of each chunk are executed before the policy looks again; None executes the whole chunk.
    The policy never sees what `disturb` did, other than in its next observation.
    """
    environment.reset(seed=seed, task=task)
    outcome, step = Outcome(), 0
    plan_seconds: list[float] = []
    stage_seconds: list[Mapping[str, float]] = []
    num_rows = num_action_steps or 1
    while not outcome.done and step < environment.max_steps:
        observation = environment.observe()
        started = perf_counter()
        try:
            chunk = policy.act(observation)
        except NoActionError as error:
            outcome = Outcome(failure=f"{NO_ACTION}: {error}")
            plan_seconds.append(perf_counter() - started)
            break
        plan_seconds.append(perf_counter() - started)
        stage_seconds.append(dict(chunk.timing))
        observer.planned(step, observation, chunk)
        rows = rows_to_execute(chunk, num_action_steps)
        num_rows = len(rows)
        for action in rows[: environment.max_steps - step]:
            executed = disturb(action)
            outcome = environment.step(executed)
            observer.stepped(step, executed, outcome)
            step += 1
            if outcome.done:
                break
    return EpisodeResult(
        task=task,
        seed=seed,
        instruction=environment.instruction,
        success=outcome.success,
        failure=None if outcome.success else outcome.failure or OUT_OF_TIME,
        num_steps=step,
        control_hz=environment.control_hz,
        num_action_steps=num_rows,
        plan_seconds=tuple(plan_seconds),
        stage_seconds=tuple(stage_seconds),
    )


def rows_to_execute(chunk: ActionChunk, num_action_steps: int | None) -> NDArray[np.float32]:
    """Return the first `num_action_steps` rows [num_action_steps, action_dim] of the chunk; all of them for None."""
    planned = len(chunk.actions)
    if num_action_steps is None and planned > 0:
        return chunk.actions
    if num_action_steps is None or not 1 <= num_action_steps <= planned:
        raise ValueError(
            f"The policy planned {planned} rows, {num_action_steps or 'at least 1'} were to be executed. "
            "Choose num_action_steps between 1 and the policy's horizon."
        )
    return chunk.actions[:num_action_steps]
