"""A flow that is pulled towards actions that are decided already: what real-time chunking does in the network.

    e   = x_t + (1 - t) · u_t                 where the flow would end from here
    u_t + k(t) · Jᵀ (W · (target - e))        the pulled velocity; J = d e / d x_t, W in [0, 1] for every step
    k(t) = min(k_max, (1 - t) / (t r²)),      r² = (1 - t)² / (t² + (1 - t)²), the variance of e at time t

Through J the steps that are free follow those that are not: the network bends the whole chunk to its decided beginning.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from molmoact2.model.flow import Velocity

Rule: TypeAlias = Literal["guided", "simplified"]
"""What J is: the derivative of the network, or the identity in its place."""
Pull: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The correction, from the end e, the x_t that it was computed from, and how far e is from the target."""
PULLS: dict[Rule, Pull] = {
    "guided": lambda end, x_t, miss: torch.autograd.grad(end, x_t, miss)[0],
    "simplified": lambda _end, _x_t, miss: miss,
}
SMALLEST = 1e-12


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a batch of flows is pulled towards."""

    target: Float[Tensor, "b h a"]
    """float32 actions in the network's range; any finite numbers where the weight is zero."""
    weight: Float[Tensor, "b h 1"]
    """How much of each step is decided, from 0 (free) to 1; a chunk of zeros flows as it would alone."""
    width: int
    """Dimensions from here on are padding, and left alone."""
    rule: Rule
    max_gain: float
    """The bound k_max."""

    @property
    def needs_gradient(self) -> bool:
        """Whether the velocity is differentiated, which tensors made in `torch.inference_mode` do not allow."""
        return self.rule == "guided"

    def row(self, index: int) -> "Guidance":
        """That of one chunk of the batch."""
        row = slice(index, index + 1)
        return replace(self, target=self.target[row], weight=self.weight[row])

    def steer(self, velocity: Velocity, num_steps: int) -> Velocity:
        """`velocity` with the pull added, for `flow.integrate` in `num_steps` steps."""
        is_real = (torch.arange(self.target.shape[-1], device=self.target.device) < self.width).float()

        def steered(x_t: Float[Tensor, "b h a"], step: int) -> Float[Tensor, "b h a"]:
            t = step / num_steps
            with torch.set_grad_enabled(self.needs_gradient):
                x_t = x_t.detach().requires_grad_(self.needs_gradient)
                u_t = velocity(x_t, step).float()
                end = x_t + (1 - t) * u_t
            miss = self.weight * is_real * (self.target - end.detach())
            return u_t.detach() + gain(t, self.max_gain) * is_real * PULLS[self.rule](end, x_t, miss)

        return steered


def gain(t: float, maximum: float) -> float:
    """k(t) = (t² + (1 - t)²) / (t (1 - t)) = 1 / (t (1 - t)) - 2, at most `maximum`; without bound at t = 0 and 1."""
    return min(maximum, 1 / max(t * (1 - t), SMALLEST) - 2)
