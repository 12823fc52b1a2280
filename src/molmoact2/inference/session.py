"""One robot's episode: what a policy may remember from one call to the next. Nothing of it lives in the policy."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8


@dataclass(frozen=True, kw_only=True)
class DepthMemory:
    """The last depth map, and the image it was made from."""

    image: UInt8[np.ndarray, "h w 3"]
    codes: Int[np.ndarray, " num_depth_codes"]


class Session:
    """The random numbers and the depth memory of one episode. Make a new one when an episode begins."""

    def __init__(self, seed: int | None = None) -> None:
        """`seed` makes the episode's noise repeatable; None draws a new seed."""
        self.generator = torch.Generator()
        self.seed = self.generator.seed() if seed is None else self.generator.manual_seed(seed).initial_seed()
        self.depth: DepthMemory | None = None
