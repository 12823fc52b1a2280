"""What policies thought in their episodes, counted: depth cells said anew, and runs of the decoder that it took."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.rollout import Observer
from molmoact2.types import ActionChunk, DepthReasoning, Observation, Outcome


class Thoughts:
    """Observer that counts the thoughts of one episode; all it sees it shows to another observer."""

    def __init__(self, other: Observer) -> None:
        self.other = other
        self.maps: list[DepthReasoning | None] = []

    def planned(self, step: int, observation: Observation, chunk: ActionChunk, /) -> None:
        """Note the depth map behind a plan, if there is one."""
        self.maps.append(chunk.depth)
        self.other.planned(step, observation, chunk)

    def stepped(self, step: int, executed: NDArray[np.floating], outcome: Outcome, /) -> None:
        """Pass on a step."""
        self.other.stepped(step, executed, outcome)

    @property
    def record(self) -> Record:
        """{"depth": ...}, a number per plan; empty for an episode without a thought."""
        maps = [one for one in self.maps if one is not None]
        depth = {
            "cells": max((len(one.codes) for one in maps), default=0),
            "renewed": [int(one.changed.sum()) for one in maps],
            "passes": [one.passes for one in maps],
            "age": [one.age for one in maps],
        }
        return {"depth": depth} if maps else {}


def thought_sentences(records: Sequence[Record]) -> list[str]:
    """For instance ["Thinking: 12.0 of 100 depth cells renewed per plan, in 7.5 passes."]; empty without thoughts."""
    thoughts = [record["depth"] for record in records if "depth" in record]
    if not thoughts:
        return []
    renewed, passes, age = (np.concatenate([one[name] for one in thoughts]) for name in ("renewed", "passes", "age"))
    cells = max(one["cells"] for one in thoughts)
    ahead = f" {np.mean(age > 0):.0%} of plans used the map of an earlier look." if age.any() else ""
    return [
        f"Thinking: {renewed.mean():.1f} of {cells} depth cells renewed per plan, in {passes.mean():.1f} passes."
        + ahead
    ]
