"""Clipping of gradients, plain or sharded, by groups that have each a norm of their own (training.md F.5)."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import nn

from molmoact2.training.parallel import ALONE, World, local

EPSILON = 1e-6
"""Added to a norm before division, as torch does."""


@torch.no_grad()
def clip_gradients(
    groups: Mapping[str, Sequence[nn.Parameter]], max_norm: float, world: World = ALONE
) -> dict[str, float]:
    """Scale the gradients of each group down to a norm of at most `max_norm`; return the norms as they were.

    The norms are those of the whole gradients, over all ranks, and the same on every rank. Where one is not finite the
    caller has to stop: the gradients are then of no use.

    A gradient that is zero everywhere is forgotten, so that its parameter stays where it is instead of decaying:
    sharding gives zeros to what no loss has reached on any rank, where one process has no gradient.
    """
    reached = {name: [p for p in group if p.grad is not None] for name, group in groups.items()}
    pieces = {name: [local(p.grad) for p in group if p.grad is not None] for name, group in reached.items()}
    counts = [world.owns(p) for group in reached.values() for p in group]
    norms = [torch.linalg.vector_norm(piece) for piece in chain.from_iterable(pieces.values())]
    squares = torch.stack([norm * is_counted for norm, is_counted in zip(norms, counts, strict=True)]).square()
    per_parameter = iter(world.sum(squares).tolist())
    totals = {}
    for name, group in reached.items():
        of_group = [next(per_parameter) for _ in group]
        totals[name] = math.sqrt(math.fsum(of_group))
        for piece in pieces[name]:
            piece.mul_(min(1.0, max_norm / (totals[name] + EPSILON)))
        for parameter, square in zip(group, of_group, strict=True):
            if square == 0:
                parameter.grad = None
    return totals
