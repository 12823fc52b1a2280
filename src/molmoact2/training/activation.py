"""Activation checkpointing: blocks forget what they computed, and compute it again in the backward pass.

It is put around the network from outside: a block keeps its class and its parameters their names.

A decoder block has a second result, the keys and values it leaves in `Remember`. A block that runs twice would leave
them twice, and a sharded one would not know that gradients come back through them. So such a block is first made to
return them like any result (`return_memory`), and what it returns is handed to `Remember` after it ran (`hand_over`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.text import Remember

REMEMBER = 3
"""Place of `Remember` among the arguments of a decoder block."""


def blocks_of(model: MolmoAct2) -> dict[str, list[nn.Module]]:
    """The repeated blocks of each tower."""
    expert = [] if model.action_expert is None else list(model.action_expert.blocks)
    return {"vision": list(model.vision.blocks), "text": list(model.text.blocks), "action_expert": expert}


def recompute(block: nn.Module) -> None:
    """Keep nothing of a block but its arguments and results; random numbers are drawn again alike."""
    block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def return_memory(block: nn.Module) -> None:
    """Make a decoder block return (x, keys, values) and leave `Remember` alone, however often it runs."""
    plain = block.forward

    def forward(x: Tensor, angles: Any, mask: Tensor, remember: Remember, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        own = Remember(remember.cache, remember.slots)
        own.layers = list(remember.layers)
        x = plain(x, angles, mask, own, *rest)
        key, value = own.layers[-1]
        # The values are a view into queries, keys and values together, which would all be kept with them.
        return x, key, value.clone()

    block.forward = forward


def hand_over(block: nn.Module) -> None:
    """Let a block that returns its memory look to the decoder as it did before. Call it after sharding."""
    block.register_forward_hook(_remember)


def _remember(block: nn.Module, args: Sequence[Any], output: tuple[Tensor, Tensor, Tensor]) -> Tensor:  # noqa: ARG001
    x, key, value = output
    args[REMEMBER].layers.append((key, value))
    return x
