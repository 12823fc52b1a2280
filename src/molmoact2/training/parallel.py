"""The processes of a run: one by itself, or those that torchrun started, each with a part of every batch.

    with join_world("cuda") as world:
        ...                              world.rank of world.size, on world.device

Nothing here waits for ever: what one rank does not answer within the time limit is an error on the others.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import get_node_local_rank
from torch.distributed.tensor import DTensor

from molmoact2.data.errors import require

CPU = torch.device("cpu")
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
"""Device -> what carries its tensors between ranks; small sums on the CPU go by gloo in every run."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Number of this process on its machine, which is also the number of its GPU."""
    device: torch.device = CPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and files that exist once."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a plain tensor over all ranks, the same everywhere; `tensor` itself stays as it is."""
        total = tensor.detach().clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum(torch.zeros(()))

    def owns(self, tensor: Tensor) -> bool:
        """Whether what this rank holds of `tensor` counts in a sum over ranks: its piece, or the main rank's copy."""
        return isinstance(tensor, DTensor) or self.is_main

    def together(self, action: Callable[[], Result]) -> Result:
        """Do something on every rank that may fail, and wait for all; where one fails, all do.

        Raises:
            OSError, ValueError: what `action` raised here, or an OSError if it did so elsewhere only.
        """
        results: list[Result] = []
        failure: OSError | ValueError | None = None
        try:
            results.append(action())
        except (OSError, ValueError) as error:
            failure = error
        num_failed = int(self.sum(torch.tensor(1 - len(results))))
        if num_failed:
            raise failure or OSError(f"{num_failed} of {self.size} ranks failed here. Their own messages say why.")
        return results[0]

    def main_does(self, action: Callable[[], None]) -> None:
        """Do something on the main rank only; the others wait for it, and fail if it does (see `together`)."""
        self.together(action if self.is_main else _nothing)


def _nothing() -> None:
    pass


ALONE = World()
"""A run of one process on the CPU."""


@contextmanager
def join_world(device: str = "cpu", *, timeout_s: float = 600.0) -> Iterator[World]:
    """The world that torchrun started this process in, or a world of one, for as long as the block runs.

    `device` is "cpu", "cuda", or, alone, any that torch knows; under torchrun every process takes the GPU of its local
    rank. A rank that waits for another longer than `timeout_s` fails. One whose block ends with an error just ends,
    which is how the others learn of it; torchrun then ends all.

    Raises:
        ValueError: torchrun was used with a device that has no way to talk to other ranks.
    """
    if not dist.is_torchelastic_launched():
        yield World(device=torch.device(device))
        return
    require(device in BACKENDS, f"Under torchrun the device must be one of {', '.join(BACKENDS)}, got {device!r}.")
    local_rank = get_node_local_rank()
    own = {"cpu": CPU, "cuda": torch.device("cuda", local_rank)}[device]
    torch.get_device_module(own).set_device(own)
    dist.init_process_group(BACKENDS[device], timeout=timedelta(seconds=timeout_s))
    yield World(rank=dist.get_rank(), size=dist.get_world_size(), local_rank=local_rank, device=own)
    # What refers to a group keeps its threads, and one that drops a tensor while Python shuts down aborts the run.
    gc.collect()
    dist.destroy_process_group()


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its piece of a sharded one, else all of it. Shares memory with `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
