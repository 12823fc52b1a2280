"""Flow matching on action chunks: the time convention, the path, the integrator.

Time runs from noise to action: t = 0 is pure noise, t = 1 the demonstrated chunk (paper section 3, architecture 6).

    x_t = (1 - t) · noise + t · actions      the straight path
    u_t = actions - noise                    its velocity, the same at every t
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Velocity: TypeAlias = Callable[[Float[Tensor, "*b h a"], int], Float[Tensor, "*b h a"]]
"""Velocity at x_t and at the time of a step of the integrator."""


def interpolate(
    noise: Float[Tensor, "*b h a"], actions: Float[Tensor, "*b h a"], t: Float[Tensor, "*b"]
) -> tuple[Float[Tensor, "*b h a"], Float[Tensor, "*b h a"]]:
    """The point x_t on the path and the velocity u_t there."""
    t = t[..., None, None]
    return (1 - t) * noise + t * actions, actions - noise


def time_grid(num_steps: int, device: torch.device | str = "cpu") -> Float[Tensor, "n"]:
    """Times t_i = i / num_steps at which Euler's method asks for the velocity.

    Raises:
        ValueError: `num_steps` is below 1.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    return torch.arange(num_steps, dtype=torch.float32, device=device) / num_steps


def integrate(velocity: Velocity, noise: Float[Tensor, "*b h a"], num_steps: int) -> Float[Tensor, "*b h a"]:
    """Carry noise to actions with Euler steps of `velocity(x_t, i)` at t = i / num_steps; x_t stays in float32."""
    x_t = noise.float()
    for step in range(num_steps):
        x_t = x_t + velocity(x_t, step).float() / num_steps
    return x_t
