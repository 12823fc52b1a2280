"""How long each stage of an answer took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Collects seconds per stage; waits for the device, so that work is charged to the stage that asked for it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self.device = device
        self.wait = torch.cuda.synchronize if device.type == "cuda" else _nothing

    def copy(self) -> "Stopwatch":
        """Another one that goes on from the same times."""
        copy = Stopwatch(self.device)
        copy.seconds = dict(self.seconds)
        return copy

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what happens inside to `name`."""
        self.wait()
        begin = time.perf_counter()
        yield
        self.wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def _nothing() -> None:
    """The CPU has nothing to wait for."""
