"""The processes of a run: one by itself, or those that torchrun started, each with a part of every batch.

    with join_world("cuda") as world:
        ...                              world.rank of world.size, on world.device

Nothing here waits for ever: what one rank does not answer within the time limit is an error on the others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import get_node_local_rank
from torch.distributed.tensor import DTensor

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
        outcome: Result | OSError | ValueError
        try:
            outcome = action()
        except (OSError, ValueError) as error:
            outcome = error
        has_failed = isinstance(outcome, OSError | ValueError)
        num_failed = int(self.sum(torch.tensor(int(has_failed))))
        if isinstance(outcome, OSError | ValueError):
            raise outcome
        if num_failed:
            raise OSError(f"{num_failed} of {self.size} ranks failed here. Their own messages say why.")
        return outcome

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take leave of the others. After an error the process just ends, which is how the others learn of it."""
        if kind is None and dist.is_initialized():
            dist.destroy_process_group()


ALONE = World()
"""A run of one process on the CPU."""


def join_world(device: str = "cpu", *, timeout_s: float = 600.0) -> World:
    """The world that torchrun started this process in, or a world of one. Use it as a context manager.

    `device` is "cpu", "cuda", or, alone, any that torch knows; under torchrun every process takes the GPU of its local
    rank. A rank that waits for another longer than `timeout_s` fails; torchrun then ends the rest.

    Raises:
        ValueError: torchrun was used with a device that has no way to talk to other ranks.
    """
    if not dist.is_torchelastic_launched():
        return World(device=torch.device(device))
    if device not in BACKENDS:
        raise ValueError(f"Under torchrun the device must be one of {', '.join(BACKENDS)}, got {device!r}.")
    local_rank = get_node_local_rank()
    own = {"cpu": CPU, "cuda": torch.device("cuda", local_rank)}[device]
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group(BACKENDS[device], timeout=timedelta(seconds=timeout_s))
    return World(rank=dist.get_rank(), size=dist.get_world_size(), local_rank=local_rank, device=own)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: its piece of a sharded one, else all of it. Shares memory with `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
