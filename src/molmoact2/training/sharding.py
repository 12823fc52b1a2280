"""FSDP2: every rank keeps a piece of each weight, and the pieces meet where they are used.

    unit                          gathered in        when
    each block of vision, text    compute dtype      before it runs, forwards and backwards; freed after
    connector                     compute dtype      the same
    everything else               float32            once per call of `Network`, until its backward pass is over

Everything else is the embedding tables, the language head, the action expert, and heads beside the network. It is read
through many methods, some of them many times per pass, partly in float32, and a rank whose share of the batch has no
actions or no answers does not read it at all; the outermost unit allows all of that. Weights, optimiser moments and
gradient sums are float32 pieces; norms inside the blocks compute in float32 with weights rounded to the compute dtype.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.training.activation import blocks_of, hand_over, recompute, return_memory
from molmoact2.training.parallel import World

Result = TypeVar("Result")


class Network(nn.Module):
    """The modules of a run, and the door through which they are computed with.

    `network(lambda: loss_of(model, heads, batch))` is `loss_of(model, heads, batch)` with all weights at hand. Sharded
    modules work nowhere else. The function takes its tensors along; it is called with nothing.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, function: Callable[[], Result]) -> Result:
        """What `function` returns: tensors in dataclasses, dictionaries, lists or tuples, or one by itself."""
        return function()


def shard(
    model: MolmoAct2,
    others: Sequence[nn.Module],
    world: World,
    *,
    compute_dtype: torch.dtype,
    checkpoint_activations: bool,
) -> Network:
    """Bring the network and the modules beside it to the world's device, a piece of each weight to every rank.

    All ranks come with the same weights. Make the optimiser and moving averages afterwards, of the parameters that are
    there then (DTensors, if there is more than one rank). Gradients are summed over ranks, not averaged: with losses
    that are divided by counts of the whole batch they are those of one process, and nothing has to be multiplied by
    the number of ranks.

    Every rank must make the same number of passes per step, and each pass must reach vision tower and decoder both
    forwards and backwards: where a share has no images or no targets, add `0 * features.sum() + 0 * hidden.sum()`.
    """
    network, blocks = Network([model, *others]), blocks_of(model)
    if world.size == 1 and not checkpoint_activations:
        return network.to(world.device)
    for block in blocks["text"]:
        return_memory(block)
    if checkpoint_activations:
        for block in chain.from_iterable(blocks.values()):
            recompute(block)
    if world.size > 1:
        _shard_units(network, [*blocks["vision"], model.connector, *blocks["text"]], world, compute_dtype)
    for block in blocks["text"]:
        hand_over(block)
    return network.to(world.device)


def _shard_units(network: Network, units: Sequence[nn.Module], world: World, compute_dtype: torch.dtype) -> None:
    mesh = init_device_mesh(world.device.type, (world.size,))
    in_float32 = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    in_compute_dtype = MixedPrecisionPolicy(
        param_dtype=compute_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=in_compute_dtype, reshard_after_forward=True)
    root = fully_shard(network, mesh=mesh, mp_policy=in_float32)
    root.set_reduce_scatter_unused_params(True, recurse=False)
    for unit in (*units, root):
        assert isinstance(unit, FSDPModule)
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)  # gloo cannot multiply and sum in one
    network.register_forward_hook(_free_without_backward)


def _free_without_backward(network: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
    """After measuring there is no backward pass that would free what the outermost unit has gathered."""
    if not torch.is_grad_enabled():
        assert isinstance(network, FSDPModule)
        network.reshard()


@torch.no_grad()
def gather(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Whole copies of sharded or plain tensors, on the CPU of the main rank; nothing on the others.

    All ranks must call it. One tensor at a time is whole on the other ranks.
    """
    wholes = ((name, _whole(tensor)) for name, tensor in tensors.items())
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in wholes if world.is_main}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
