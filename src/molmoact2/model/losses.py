"""Training losses, as sums over valid elements, in float32.

Who calls them divides by the number of valid elements of the whole step, over all passes and ranks; that number depends
on the batch alone. So the loss is the same however a step is cut into passes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def masked_sum(values: Float[Tensor, "*b"], mask: Bool[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Sum of `values` where `mask` is True."""
    return torch.where(mask, values, 0.0).sum()


def flow_loss(
    velocity: Float[Tensor, "b k h a"],
    target: Float[Tensor, "b k h a"],
    valid_steps: Bool[Tensor, "b h"],
    action_dim: Int[Tensor, "b"],
) -> Float[Tensor, ""]:
    """Squared error of the velocity, summed over valid steps and true dimensions (paper section 3).

    Steps beyond an episode's end and dimensions beyond a robot's own count for nothing.
    """
    is_real = torch.arange(target.shape[-1], device=target.device) < action_dim[:, None]
    mask = valid_steps[:, None, :, None] & is_real[:, None, None, :]
    return masked_sum((velocity.float() - target.float()).square(), mask.expand(target.shape))


def language_losses(
    logits: Float[Tensor, "n v"], token_id: Int[Tensor, "n"], weight: Float[Tensor, "n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Weighted sums over n tokens: of their cross-entropy, and of the squared log of the softmax's denominator."""
    denominator = logits.float().logsumexp(dim=-1)
    chosen = logits.float().gather(1, token_id[:, None])[:, 0]
    return (weight * (denominator - chosen)).sum(), (weight * denominator.square()).sum()
