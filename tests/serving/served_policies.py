"""Policies for tests of the server: a tiny real one, and ones that do exactly what a test needs."""

import threading
from pathlib import Path

import numpy as np

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.types import ActionChunk, Observation
from molmoact2.wire.messages import Ask

ROBOTS = ("so101_tabletop", "franka_droid", "yam_dual_molmoact2", "libero")


def tiny_policy(folder: Path, *tags: str, **variations) -> MolmoAct2Policy:
    """Random weights, everything else as it is in a real checkpoint."""
    robots = [EMBODIMENTS[tag] for tag in tags or ROBOTS[:1]]
    return load_policy(tiny_checkpoint(folder, embodiments=robots, **variations))


class Scripted(MolmoAct2Policy):
    """Answers at once, or when it is let; row 0 of an answer is the state that it was asked about."""

    # A frozen dataclass has no other place for what a test wants of it.
    def __init__(self, real: MolmoAct2Policy) -> None:
        super().__init__(model=real.model, processor=real.processor, action_tokenizer=real.action_tokenizer)
        vars(self).update(gate=threading.Event(), begun=threading.Semaphore(0), batches=[], failure=None)
        self.gate.set()

    gate: threading.Event
    begun: threading.Semaphore
    """Released when an answer begins."""
    batches: list[int]
    """How many were answered together, in order; warming up is not among them."""
    failure: Exception | None

    def act(self, observation, embodiment=None, **_):  # type: ignore[override]
        if isinstance(observation, Observation):  # warming up asks for one
            return chunk_for(observation, self.processor.tag(embodiment).action.width)
        self.begun.release()
        assert self.gate.wait(30)
        self.batches.append(len(observation))
        if self.failure is not None:
            raise self.failure
        return [chunk_for(one, self.processor.tag(embodiment).action.width) for one in observation]


def chunk_for(observation: Observation, width: int) -> ActionChunk:
    row = np.resize(np.asarray(observation.state, np.float32), width)
    return ActionChunk(actions=np.stack([row, row + 1, row + 2]), timing={"flow": 0.0})


def question(number: int = 0, *, robot=None, **fields) -> Ask:
    """A question about a made-up observation, the same for the same number."""
    observation = fake_observation(seed=number) if robot is None else fake_observation(robot, seed=number)
    return Ask(**{"id": number, "observation": observation, "observed_at": 1.5, **fields})
