"""Photometric augmentation of a batch of images, in one vectorised pass, seeded by the caller.

Each image gets its own draw: brightness and contrast by a factor, saturation towards or away from grey, and a mild
change of colour temperature (training E.5 gives the recipe's ranges; hue is kept small since tasks name colours).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """How far each property may move from 1, both ways."""

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    tint: float = 0.05
    """Of each colour channel on its own."""

    def __call__(self, images: UInt8[Tensor, "n h w 3"], rng: np.random.Generator) -> UInt8[Tensor, "n h w 3"]:
        """Augment every image on its own."""
        n = len(images)

        def factor(spread: float, channels: int = 1) -> Tensor:
            return torch.from_numpy(rng.uniform(1 - spread, 1 + spread, (n, 1, 1, channels)).astype(np.float32))

        x = images.float() * (factor(self.brightness) * factor(self.tint, 3))
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = torch.lerp(mean, x, factor(self.contrast))
        grey = (x @ torch.tensor(LUMA))[..., None]
        return torch.lerp(grey.expand_as(x), x, factor(self.saturation)).clamp_(0, 255).round_().to(torch.uint8)
