"""A depth codec for tests: random and tiny, of as many cells and codes as the checkpoint of `thinker.py` has."""

import torch

from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale


def small_codec(scale: DepthScale | None = None, unit: str = "m") -> DepthCodec:
    """4 x 4 cells of 32 codes; by default for 0.2 to 1.2 metres."""
    fixed = DepthScale(kind="fixed", low=0.2, high=1.2)
    config = CodecConfig(image_size=16, channels=(4, 8), code_dim=8, num_codes=32, scale=scale or fixed, unit=unit)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DepthCodec(config)
