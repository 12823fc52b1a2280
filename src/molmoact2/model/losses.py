"""Training losses. All are means over valid elements only, in float32; no valid element gives zero."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def masked_mean(values: Float[Tensor, "*b"], mask: Bool[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Mean of `values` where `mask` is True, 0 where it is nowhere True."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def flow_loss(
    velocity: Float[Tensor, "b k h a"],
    target: Float[Tensor, "b k h a"],
    valid_steps: Bool[Tensor, "b h"],
    action_dim: Int[Tensor, "b"],
) -> Float[Tensor, ""]:
    """Mean squared error of the velocity over valid steps and true dimensions (paper section 3).

    Steps beyond an episode's end and dimensions beyond a robot's own count for nothing, neither above nor below the
    fraction line.
    """
    is_real = torch.arange(target.shape[-1], device=target.device) < action_dim[:, None]
    mask = valid_steps[:, None, :, None] & is_real[:, None, None, :]
    return masked_mean((velocity.float() - target.float()).square(), mask.expand(target.shape))
