"""Starting values of a network that is trained from scratch."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from molmoact2.model.molmoact2 import MolmoAct2

EMBEDDING_STD = 0.3
POSITION_SCALE = 0.5
MAX_PERIOD = 100.0


def initialize(model: MolmoAct2, generator: torch.Generator) -> None:
    """Fill every parameter in place, the same way for the same generator state.

    | parameter                                  | value                                                     |
    |--------------------------------------------|-----------------------------------------------------------|
    | matrices                                   | normal, std 1 / sqrt(inputs)                              |
    | matrices that write to the residual stream | the same, divided by sqrt(2 · layers)                     |
    | biases                                     | 0                                                         |
    | norm weights                               | 1                                                         |
    | token embeddings                           | normal, std 0.3                                           |
    | state token embeddings                     | sinusoids of the bin at scale 0.3, so that neighbours are alike |
    | patch positions                            | 2-D sinusoids at scale 0.5: at 0.02 position is invisible |
    | modulations, velocity output of the expert | 0: every block starts as the identity                     |
    | depth gates                                | weight 0, bias from the config: closed                    |
    """
    config = model.config
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill(name, parameter, config.text_config.num_hidden_layers, generator)
        text, vision = model.text, model.vision
        first, count = config.state_token_start_id, config.num_state_tokens
        if first is not None:
            bins = torch.arange(count, dtype=torch.float32) / count
            text.embedding[first : first + count] = EMBEDDING_STD * ordinal_embedding(bins, text.embedding.shape[1])
        side = math.isqrt(vision.positional_embedding.shape[0])
        vision.positional_embedding.copy_(POSITION_SCALE * sincos_positions(side, vision.positional_embedding.shape[1]))
        for gate in model.depth_gate or ():
            gate.get_parameter("weight").zero_()
            gate.get_parameter("bias").fill_(config.action_expert_depth_gate_init_bias)


RESIDUAL_OUTPUTS = ("attention.out.weight", "mlp.down.weight")
ZERO = ("modulation.weight", "velocity_out.weight")


def _fill(name: str, parameter: nn.Parameter, num_layers: int, generator: torch.Generator) -> None:
    if name.endswith("embedding"):
        parameter.normal_(std=EMBEDDING_STD, generator=generator)
    elif parameter.dim() == 2 and not name.endswith(ZERO):
        depth_factor = (2 * num_layers) ** -0.5 if name.endswith(RESIDUAL_OUTPUTS) else 1.0
        parameter.normal_(std=depth_factor * parameter.shape[1] ** -0.5, generator=generator)
    else:
        parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)


def sincos_positions(side: int, width: int) -> Float[Tensor, "p d"]:
    """Sinusoids of the row in the first half of the channels and of the column in the second, for a square grid.

    Raises:
        ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"2-D sinusoidal positions need a width that is a multiple of 4, got {width}.")
    steps = torch.arange(side, dtype=torch.float32)
    axis = _sinusoids(steps, width // 2)
    rows = rearrange(axis, "r d -> r 1 d").expand(side, side, -1)
    columns = rearrange(axis, "c d -> 1 c d").expand(side, side, -1)
    return rearrange(torch.cat((rows, columns), dim=-1), "r c d -> (r c) d")


def ordinal_embedding(values: Float[Tensor, "v"], width: int) -> Float[Tensor, "v d"]:
    """Sinusoids of numbers in [0, 1], from half a period over the whole range down to fine ones."""
    periods = torch.logspace(math.log10(2.0), math.log10(0.02), width // 2)
    angles = 2 * math.pi * values[:, None] / periods
    return math.sqrt(2) * torch.cat((angles.sin(), angles.cos()), dim=-1)[:, :width]


def _sinusoids(positions: Float[Tensor, "v"], width: int) -> Float[Tensor, "v d"]:
    frequencies = MAX_PERIOD ** -(torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    angles = positions[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
