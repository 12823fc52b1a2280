"""The recorded cases: small checkpoints in the released format with the reference's inputs and outputs.

The arrays were recorded from the reference implementation in float32 on a CPU (architecture.md 9). They never change; a
test that fails against them found a mistake in the code.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2 import MolmoAct2Policy, Observation, load_policy
from molmoact2.processing import Processor

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = ("tiny", "tiny-think", "tiny-discrete", "tiny-crops")


@dataclass(frozen=True)
class Case:
    """One question that the reference was asked, with everything it computed."""

    checkpoint: str
    index: int

    def __str__(self) -> str:
        return f"{self.checkpoint}-{self.index}"

    @property
    def record(self) -> dict[str, Any]:
        return records(self.checkpoint)[self.index]

    @property
    def tag(self) -> str:
        return self.record["tag"]

    @property
    def thinks(self) -> bool:
        return self.record["style"] == "robot_depth_action"

    @property
    def processor(self) -> Processor:
        return processor(self.checkpoint)

    @property
    def policy(self) -> MolmoAct2Policy:
        return policy(self.checkpoint)

    def __getitem__(self, key: str) -> np.ndarray:
        return arrays(self.checkpoint)[f"case{self.index}/{key}"]

    def observation(self, prefix: str = "") -> Observation:
        images = [self[f"{prefix}image{k}"] for k in range(self.record["num_images"])]
        return Observation(images=images, state=self["state"], instruction=self.record["task"])


@lru_cache
def records(checkpoint: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / checkpoint / "golden.json").read_text())


@lru_cache
def arrays(checkpoint: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / checkpoint / "golden.npz") as file:
        return dict(file)


@lru_cache
def processor(checkpoint: str) -> Processor:
    return Processor.load(GOLDEN / checkpoint)


@lru_cache
def policy(checkpoint: str) -> MolmoAct2Policy:
    return load_policy(GOLDEN / checkpoint)


CASES = [Case(name, index) for name in CHECKPOINTS for index in range(len(records(name)))]
"""Every recorded case."""


def cases(*modes: str) -> list[Case]:
    """The cases of these modes: continuous, discrete, depth_continuous, depth_discrete."""
    return [case for case in CASES if case.record["mode"] in modes]
