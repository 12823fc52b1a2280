"""The small parts every tower shares, and the precision policy.

Precision: weights and activations are in the compute dtype, the dtype of the tensors that flow through. float32 is
kept, whatever the compute dtype, where rounding would be seen: inside the norms, the softmax, the rotary angles and
their application, the time embedding, the flow state, logits and losses. There is no autocast.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class Linear(nn.Linear):
    """A linear layer that computes in the dtype of its input, so that float32 weights can train in bfloat16."""

    def forward(self, input: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:  # noqa: A002 - torch's name
        """Apply the layer in the dtype of `input`."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return F.linear(input, self.weight.to(input.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation, in float32."""

    def forward(self, input: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:  # noqa: A002 - torch's name
        """Normalise the last axis."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a weight, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalise the last axis."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def rms_normalize(x: Float[Tensor, "*b d"], eps: float) -> Float[Tensor, "*b d"]:
    """Root-mean-square normalisation of the last axis without a weight, in float32."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)


class SwiGLU(nn.Module):
    """`down(act(gate(x)) * up(x))` with three separate projections."""

    def __init__(self, width: int, inner: int, out: int, *, bias: bool, activation: str = "silu") -> None:
        super().__init__()
        self.gate = Linear(width, inner, bias=bias)
        self.up = Linear(width, inner, bias=bias)
        self.down = Linear(inner, out, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b o"]:
        """Apply the gated MLP to the last axis."""
        return self.down(self.activation(self.gate(x)) * self.up(x))


def rotary_angles(
    positions: Int[Tensor, "*b s"], head_dim: int, theta: float
) -> tuple[Float[Tensor, "*b s r"], Float[Tensor, "*b s r"]]:
    """Cosine and sine of `position · theta^(-2i / head_dim)` for i < r = head_dim / 2, in float32."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[..., None].float() * theta**-exponents
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "*a n s d"], angles: tuple[Float[Tensor, "*b s r"], Float[Tensor, "*b s r"]]
) -> Float[Tensor, "*a n s d"]:
    """Rotate the first half of each head against its second half (not interleaved), in float32."""
    cos, sin = (part.unsqueeze(-3) for part in angles)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
