"""Augmentation of training images: crop and rotation, colour, blur; every camera on its own (training.md E.5).

    none          the images as they are
    photometric   colour, then blur
    full          crop and rotation, then colour, then blur

All that is random comes from the caller's generator, in the same number of draws whatever the strengths are. Two
differences from the recipe as torchvision would do it: crop and rotation are one resampling instead of two, so the
image is smoothed once, and colour changes always come in the order brightness, contrast, saturation, hue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from molmoact2.data.errors import require

LUMA = (0.299, 0.587, 0.114)
BLUR_REACH = 2
"""Pixels to each side that the blur mixes in: a kernel of 5."""
MODES = ("none", "photometric", "full")
DRAWS = ("left", "top", "angle", "brightness", "contrast", "saturation", "hue", "blur", "sigma")
"""What is drawn for each image, uniformly from [0, 1) at first."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The recipe; the defaults are the paper's."""

    mode: Literal["none", "photometric", "full"] = "full"
    crop: float = 0.95
    """Side of the part that is kept, relative to the whole; it is scaled back to the full size."""
    rotation_deg: float = 5.0
    """Largest rotation both ways; what comes in from outside is black."""
    brightness: float = 0.2
    """Largest change of the factor 1, both ways; the same for contrast and saturation."""
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    """Largest shift both ways, as a fraction of the circle of hues; at most a sixth."""
    blur_probability: float = 0.2
    blur_sigma: tuple[float, float] = (0.1, 1.0)
    """Least and largest width of the Gaussian, in pixels."""

    def __post_init__(self) -> None:
        require(self.mode in MODES, f"Augmentation must be one of {', '.join(MODES)}, got {self.mode!r}.")
        require(0 < self.crop <= 1, f"crop must be above 0 and at most 1, got {self.crop}.")
        require(0 <= self.hue <= 1 / 6, f"hue must be from 0 to 1/6, got {self.hue}.")

    def __call__(self, images: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> tuple[NDArray[np.uint8], ...]:
        """Augment images [h, w, 3], of any sizes."""
        if self.mode == "none":
            return tuple(images)
        draws = torch.from_numpy(rng.random((len(images), len(DRAWS))).astype(np.float32))
        pairs = zip(images, draws, strict=True)
        return tuple(
            self.batch(torch.from_numpy(np.array(image)[None]), draw[None])[0].numpy() for image, draw in pairs
        )

    def batch(self, images: UInt8[Tensor, "n h w 3"], draws: Float[Tensor, "n d"]) -> UInt8[Tensor, "n h w 3"]:
        """Augment images of one size; `draws` are in [0, 1), a column for each of `DRAWS`.

        One image at a time takes a quarter less of a CPU's time than two of 378 x 378, which do not fit in its cache.
        """
        drawn: dict[str, Tensor] = dict(zip(DRAWS, draws.T, strict=True))
        x = images.permute(0, 3, 1, 2).float().contiguous()
        if self.mode == "full":
            x = crop_and_rotate(x, self._windows(drawn, x.shape[2:]), self._spread(drawn["angle"], self.rotation_deg))
        brightness, contrast, saturation = (
            1 + self._spread(drawn[name], vars(self)[name])[:, None, None, None]
            for name in ("brightness", "contrast", "saturation")
        )
        x.mul_(brightness).clamp_(0, 255)
        x = torch.lerp(grey(x).mean(dim=(1, 2, 3), keepdim=True), x, contrast).clamp_(0, 255)
        x = torch.lerp(grey(x), x, saturation).clamp_(0, 255)
        x = shift_hue(x, self._spread(drawn["hue"], self.hue))
        blurred = (drawn["blur"] < self.blur_probability).nonzero()[:, 0]
        low, high = self.blur_sigma
        if len(blurred) and min(x.shape[2:]) > BLUR_REACH:
            x[blurred] = blur(x[blurred], low + (high - low) * drawn["sigma"][blurred])
        return x.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    @staticmethod
    def _spread(draw: Float[Tensor, " n"], most: float) -> Float[Tensor, " n"]:
        """From [0, 1) to [-most, most)."""
        return most * (2 * draw - 1)

    def _windows(self, drawn: dict[str, Tensor], size: Sequence[int]) -> Float[Tensor, "n 4"]:
        """Left, top, width and height of each crop, in whole pixels."""
        height, width = size
        inner = [round(self.crop * width), round(self.crop * height)]
        left = (drawn["left"] * (width - inner[0] + 1)).floor()
        top = (drawn["top"] * (height - inner[1] + 1)).floor()
        return torch.stack([left, top, *(torch.full_like(left, side) for side in inner)], dim=1)


def crop_and_rotate(
    x: Float[Tensor, "n c h w"], windows: Float[Tensor, "n 4"], angles_deg: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Scale each window (left, top, width, height) to the full size and rotate it, bilinear, in one resampling.

    Outside of the rotated window it is black; at its border a pixel fades by the part of it that lies outside.
    """
    height, width = x.shape[2:]
    u, v = _rotated(height, width, angles_deg)
    left, top, inner_width, inner_height = windows.T[:, :, None, None]
    covered = _inside(u, width) * _inside(v, height)
    source_u = left + ((u + 0.5) * (inner_width / width) - 0.5).clamp(min=0).minimum(inner_width - 1)
    source_v = top + ((v + 0.5) * (inner_height / height) - 0.5).clamp(min=0).minimum(inner_height - 1)
    grid = torch.stack([(2 * source_u + 1) / width - 1, (2 * source_v + 1) / height - 1], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False).mul_(covered[:, None])


def _rotated(height: int, width: int, angles_deg: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Where the pixels [n, height, width] of the result come from, as column and row, turning around the middle."""
    angle = torch.deg2rad(angles_deg)[:, None, None]
    right = torch.arange(width) - (width - 1) / 2
    down = (torch.arange(height) - (height - 1) / 2)[:, None]
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return cosine * right - sine * down + (width - 1) / 2, sine * right + cosine * down + (height - 1) / 2


def _inside(position: Tensor, size: int) -> Tensor:
    """How much of a pixel at this position lies inside, from 0 to 1: the sum of the inner pixels' weights."""
    return (1 + torch.minimum(position, size - 1 - position)).clamp(0, 1)


def grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """The brightness that an eye sees."""
    red, green, blue = x.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def shift_hue(x: Float[Tensor, "n 3 h w"], shift: Float[Tensor, " n"]) -> Float[Tensor, "n 3 h w"]:
    """Turn the circle of hues by a fraction `shift`, at most a sixth, keeping saturation and value (HSV)."""
    red, green, blue = x.unbind(dim=1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    inverse = chroma.clamp(min=1e-6).reciprocal_()
    of_blue = torch.where(high == green, (blue - red).mul_(inverse).add_(2), (red - green).mul_(inverse).add_(4))
    hue = torch.where(high == red, (green - blue).mul_(inverse), of_blue).add_(6 * shift[:, None, None])
    turned = torch.empty_like(x)
    for channel in range(3):
        distance = (hue - 2 * channel).abs_().sub_(3).abs_()  # on a circle of length 6, counted from the far side
        torch.addcmul(low, chroma, distance.sub_(1).clamp_(0, 1), out=turned[:, channel])
    return turned


def blur(x: Float[Tensor, "n c h w"], sigma: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Gaussian blur with 5 x 5 weights, mirrored at the border; image `i` with a width of `sigma[i]` pixels."""
    offset = torch.arange(-BLUR_REACH, BLUR_REACH + 1)
    weights = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)[:, :, None, None, None]
    for axis, border in ((2, (0, 0, BLUR_REACH, BLUR_REACH)), (3, (BLUR_REACH, BLUR_REACH, 0, 0))):
        padded, size = F.pad(x, border, mode="reflect"), x.shape[axis]
        x = weights[:, BLUR_REACH] * padded.narrow(axis, BLUR_REACH, size)
        for i in range(BLUR_REACH):  # four times as fast as a convolution on a CPU
            pair = padded.narrow(axis, i, size) + padded.narrow(axis, 2 * BLUR_REACH - i, size)
            x.addcmul_(weights[:, i], pair)
    return x
