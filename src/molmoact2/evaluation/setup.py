"""From the names on a command line to something that can be run, and the protocol that it is run under."""

import importlib.metadata
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from molmoact2 import envs
from molmoact2.envs.labels import LabelledEnvironment
from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.evaluation.benchmark import FIRST_SEED, Benchmark
from molmoact2.evaluation.experts import EXPERTS, PERTURBATIONS, make_expert
from molmoact2.evaluation.film import FilmedEnvironment
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.recording import Recording
from molmoact2.registry import unknown
from molmoact2.types import Environment


def open_environment(name: str, variations: Variations = NOMINAL) -> FilmedEnvironment:
    """Make the environment called `name`, with scenes that are varied; every one of ours can be filmed."""
    return cast(FilmedEnvironment, envs.make(name, variations=variations))


def open_labelled_environment(name: str, *, image_size: tuple[int, int]) -> LabelledEnvironment:
    """Make the environment called `name` with scenes for demonstrations and images of `image_size` (height, width)."""
    return cast(LabelledEnvironment, envs.make_for_recording(name, image_size=image_size))


def choose_tasks(environment: Environment, tasks: Sequence[str]) -> tuple[str, ...]:
    """Return `tasks`, or all tasks of the environment when none are named; ValueError for one it does not offer."""
    for task in tasks:
        if task not in environment.tasks:
            raise unknown("task", task, environment.tasks)
    return tuple(dict.fromkeys(tasks)) or environment.tasks


def make_benchmark(
    choice: PolicyChoice,
    *,
    tasks: Sequence[str],
    num_episodes: int,
    num_films: int,
    variations: Variations = NOMINAL,
) -> tuple[Benchmark, dict[str, Any]]:
    """Return the benchmark and its protocol: all that makes a difference to the result of an episode.

    What a plain run does without, variations and thinking, is in the protocol only where it is asked for.
    """
    choice.check()
    environment = open_environment(choice.environment)
    benchmark = Benchmark(
        open_environment=partial(open_environment, choice.environment, variations),
        open_policy=choice.open,
        tasks=choose_tasks(environment, tasks),
        num_episodes=num_episodes,
        num_films=num_films,
    )
    protocol = {
        "policy": choice.label,
        "fingerprint": choice.fingerprint(),
        "environment": choice.environment,
        "embodiment": environment.embodiment,
        "control_hz": environment.control_hz,
        "max_steps": environment.max_steps,
        "first_seed": FIRST_SEED,
        "action_steps": choice.num_action_steps or "the policy's own",
        "flow_steps": choice.num_flow_steps or "the policy's own",
        "mode": f"{choice.mode}, guided" if choice.guided else choice.mode,
        "dtype": choice.dtype,
        "molmoact2": importlib.metadata.version("molmoact2"),
        **envs.protocol_facts(choice.environment),
    }
    environment.close()
    extras = {"variations": variations.active, "think": choice.think, "think_ahead": choice.think_ahead}
    return benchmark, protocol | {name: value for name, value in extras.items() if value}


def make_recording(
    name: str,
    *,
    image_size: int,
    tasks: Sequence[str],
    num_episodes: int,
    perturbed_fraction: float,
    first_seed: int,
) -> tuple[Recording, dict[str, Any]]:
    """Return the recording of an environment's expert and its protocol: all that makes a difference to an episode."""
    if not 0 <= first_seed < FIRST_SEED:
        raise ValueError(
            f"Recordings take seeds from 0 to {FIRST_SEED - 1}, evaluations those above; got {first_seed}."
        )
    if name not in EXPERTS:
        raise unknown("environment with an expert", name, EXPERTS)
    open_labelled = partial(open_labelled_environment, name, image_size=(image_size, image_size))
    environment = open_labelled()
    recording = Recording(
        open_environment=open_labelled,
        open_expert=partial(make_expert, name),
        open_perturbation=PERTURBATIONS[name],
        tasks=choose_tasks(environment, tasks),
        num_episodes=num_episodes,
        perturbed_fraction=perturbed_fraction,
        first_seed=first_seed,
    )
    protocol = {
        "environment": name,
        "tasks": recording.tasks,
        "image_size": image_size,
        "perturbed_fraction": perturbed_fraction,
        "first_seed": first_seed,
        "molmoact2": importlib.metadata.version("molmoact2"),
    }
    environment.close()
    return recording, protocol
