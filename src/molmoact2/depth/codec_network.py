"""The VQ-VAE of depth maps: encoder, codebook and decoder.

    levels [b, 1, s, s]  -- encoder -->  features [b, d, s/32, s/32]  -- nearest of the codebook -->  codes
    codes  -- codebook -->  features  -- decoder -->  levels

Facts: training.md G. No normalisation layers. The letters: b maps, s pixels of a side, d features of a cell, k codes.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

NUM_RESIDUAL_BLOCKS = 2


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.layers(x)


class Codebook(nn.Module):
    """The vectors that features of a cell are rounded to. They are learnt by averaging, not by gradient."""

    vectors: Tensor
    """[k, d]"""

    def __init__(self, num_codes: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(num_codes, code_dim))

    def nearest(self, features: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The code whose vector is nearest by squared Euclidean distance, the first of equals."""
        return (self.vectors.square().sum(dim=1) - 2 * features @ self.vectors.T).argmin(dim=1)

    def forward(self, codes: Int[Tensor, "*n"]) -> Float[Tensor, "*n d"]:
        return F.embedding(codes, self.vectors)


def make_encoder(channels: Sequence[int], code_dim: int) -> nn.Sequential:
    """Halve the map once per entry of `channels`, then two residual blocks and a 1x1 convolution to the features."""
    pairs = pairwise((1, *channels))
    halvings = [(nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()) for before, after in pairs]
    blocks = [ResidualBlock(channels[-1]) for _ in range(NUM_RESIDUAL_BLOCKS)]
    return nn.Sequential(*(layer for pair in halvings for layer in pair), *blocks, nn.Conv2d(channels[-1], code_dim, 1))


def make_decoder(channels: Sequence[int], code_dim: int) -> nn.Sequential:
    """The encoder's mirror: as many doublings, the first of which keeps the number of channels."""
    widths = (channels[-1], *reversed(channels))
    pairs = pairwise(widths)
    doublings = [(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()) for before, after in pairs]
    blocks = [ResidualBlock(widths[0]) for _ in range(NUM_RESIDUAL_BLOCKS)]
    first = (nn.Conv2d(code_dim, widths[0], 1), nn.ReLU())
    return nn.Sequential(
        *first, *blocks, *(layer for pair in doublings for layer in pair), nn.Conv2d(channels[0], 1, 1)
    )


class CodecNetwork(nn.Module):
    """The three parts, on maps in [-1, 1]."""

    def __init__(self, channels: Sequence[int], code_dim: int, num_codes: int) -> None:
        super().__init__()
        self.encoder = make_encoder(channels, code_dim)
        self.codebook = Codebook(num_codes, code_dim)
        self.decoder = make_decoder(channels, code_dim)

    def encode(self, maps: Float[Tensor, "b 1 s s"]) -> Int[Tensor, "b cells"]:
        """The codes of maps, row by row."""
        features = self.encoder(maps).float().permute(0, 2, 3, 1)
        return self.codebook.nearest(features.flatten(0, 2)).view(len(maps), -1)

    def decode(self, codes: Int[Tensor, "b cells"], side: int) -> Float[Tensor, "b 1 s s"]:
        """The maps that codes stand for; not clamped."""
        features = self.codebook(codes).view(len(codes), side, side, -1)
        return self.decoder(features.permute(0, 3, 1, 2)).float()
