"""Between robot units and the network's range. Facts: training.md C.

    bounded   n = 2 (x - low) / (high - low) - 1, clipped to [-1, 1]      q01_q99 (usual), q10_q90, min_max
    mean_std  n = (x - mean) / std
    none      n = x

A dimension whose mask is False is passed through: it is in [-1, 1] already. One that never changed in the data is 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

SMALLEST_RANGE = 1e-6
BOUNDS = {"min_max": ("min", "max"), "q01_q99": ("q01", "q99"), "q10_q90": ("q10", "q90")}
"""Mode -> the statistics that become -1 and +1."""
NEEDED = {"none": (), "mean_std": ("mean", "std"), **BOUNDS}
"""Mode -> the statistics it cannot do without."""
MODES = tuple(NEEDED)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """One affine map per dimension, and its inverse, in float32."""

    offset: Float32[np.ndarray, " d"]
    """What becomes -1 (bounded) or 0."""
    width: Float32[np.ndarray, " d"]
    """What becomes 2 (bounded) or 1; taken as `SMALLEST_RANGE` when dividing by it, if it is smaller."""
    is_bounded: bool
    scaled: Bool[np.ndarray, " d"]
    """False where a dimension is passed through."""
    constant: Bool[np.ndarray, " d"]
    """True where the data never changed."""

    @property
    def limit(self) -> float:
        """Normalised values are clipped to ±limit."""
        return 1.0 if self.is_bounded else np.inf

    def normalize(self, values: Float[np.ndarray, "*b d"]) -> Float32[np.ndarray, "*b d"]:
        """Robot units to the network's range."""
        values = values.astype(np.float32)
        fraction = (values - self.offset) / np.maximum(self.width, np.float32(SMALLEST_RANGE))
        normalized = np.clip(fraction * (1 + self.is_bounded) - self.is_bounded, -self.limit, self.limit)
        return np.where(self.constant, np.float32(0), np.where(self.scaled, normalized, values))

    def restore(self, normalized: Float[np.ndarray, "*b d"]) -> Float32[np.ndarray, "*b d"]:
        """The network's range to robot units; values beyond ±1 are clipped first when bounded."""
        clipped = np.clip(normalized.astype(np.float32), -self.limit, self.limit)
        fraction = (clipped + self.is_bounded) / (1 + self.is_bounded)
        return np.where(self.scaled, fraction * self.width + self.offset, clipped)


def scaling_of(
    quantity: Callable[[str], Float[np.ndarray, " d"]],
    *,
    mode: str,
    scaled: Bool[np.ndarray, " d"],
    constant: Bool[np.ndarray, " d"],
) -> Scaling:
    """The map of a normalisation mode. `quantity` gives a statistic ("mean", "q01", …) by name."""
    single = {name: quantity(name).astype(np.float32) for name in NEEDED[mode]}
    match mode:
        case "none":
            offset, width = np.zeros(len(scaled), np.float32), np.ones(len(scaled), np.float32)
        case "mean_std":
            offset, width = single["mean"], np.maximum(single["std"], np.float32(SMALLEST_RANGE))
        case _:
            low, high = single.values()
            offset, width = low, high - low
    is_bounded, never = mode in BOUNDS, constant & (mode != "none")
    return Scaling(offset=offset, width=width, is_bounded=is_bounded, scaled=scaled, constant=never)
