"""A checkpoint that thinks, and a codec for what it says; both random, both tiny."""

from pathlib import Path

import torch

from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale
from molmoact2.inference import load_policy, save_policy
from molmoact2.testing import tiny_checkpoint

LOUD = 8.0


def thinking_checkpoint(folder: Path) -> Path:
    """A random checkpoint of 4 x 4 cells that ends its depth map in time.

    Every position has a large first number, which only the token that ends the map looks at: where any token may be
    said it is that one, and where codes are compared it makes no difference.
    """
    policy = load_policy(tiny_checkpoint(folder.with_name(f"{folder.name}-start"), enable_depth_reasoning=True))
    text, head = policy.model.text, policy.model.lm_head
    family = policy.processor.vocabulary.depth
    assert family is not None
    with torch.no_grad():
        for table in (text.embedding, text.new_embedding):
            table[:, 0] = LOUD
        head.weight[:, 0] = 0
        head.weight[family.end, 0] = 100 * LOUD
    save_policy(policy, folder)
    return folder


def tiny_codec() -> DepthCodec:
    """A codec of 4 x 4 cells in metres, of as many codes as the checkpoint has."""
    torch.manual_seed(0)
    scale = DepthScale(kind="fixed", low=0.2, high=1.2)
    config = CodecConfig(image_size=16, channels=(4, 8), code_dim=8, num_codes=32, scale=scale, unit="m")
    return DepthCodec(config)
