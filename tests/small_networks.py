"""Small networks of any configuration, and made-up prompts for them."""

from collections.abc import Sequence
from typing import Any

import torch

from molmoact2.model.config import ModelConfig
from molmoact2.model.inputs import ModelInputs
from molmoact2.testing import TINY, vary

GRID = (3, 4)
"""(rows, columns) of patches in an image: not square, and odd, so that windows reach over the edge."""
IMAGE_START, IMAGE_END, IMAGE_PATCH = 97, 98, 99
FIRST_WORD, NUM_WORDS = 42, 54
"""Ids that mean nothing in particular."""

SMALL = vary(
    TINY,
    {
        "text_config": {"vocab_size": 96, "additional_vocab_size": 8},
        "vit_config": {"image_patch_size": 2, "image_default_input_size": (8, 8)},
        "image_patch_id": IMAGE_PATCH,
        "max_action_dim": 5,
        "max_action_horizon": 6,
        "num_depth_codes": 4,
        "num_depth_tokens": 8,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "action_output_token_id": 10,
        "action_start_token_id": 11,
        "action_end_token_id": 12,
        "action_token_start_id": 13,
        "depth_output_token_id": 30,
        "depth_start_token_id": 31,
        "depth_end_token_id": 32,
        "depth_token_start_id": 33,
    },
)


def small_config(**variations: Any) -> ModelConfig:
    """`SMALL` with other fields; those of a nested config are given as a dictionary."""
    return vary(SMALL, variations)


def token_ids(config: ModelConfig, num_images: int, num_words: int, generator: torch.Generator) -> list[int]:
    """A prompt with images, words, a spoken action and a depth map, as long as one likes."""
    image = [IMAGE_START, *[config.image_patch_id] * len(windows(0)), IMAGE_END]
    words = torch.randint(FIRST_WORD, FIRST_WORD + NUM_WORDS, (num_words,), generator=generator).tolist()
    return [1, *image * num_images, *words, 11, 14, 13, 12, 1, 50, 30, 31, 33, 40, 35, 32, 10]


def windows(first_patch: int) -> list[list[int]]:
    """The 2 x 2 windows of patches of one image, -1 where they reach over its lower edge."""
    rows, columns = GRID

    def patch(row: int, column: int) -> int:
        return first_patch + row * columns + column if row < rows else -1

    corners = [(row, column) for row in range(0, rows, 2) for column in range(0, columns, 2)]
    return [[patch(r, c), patch(r, c + 1), patch(r + 1, c), patch(r + 1, c + 1)] for r, c in corners]


def prompts(
    config: ModelConfig, *, num_images: Sequence[int] = (2, 1), num_words: Sequence[int] = (5, 9), seed: int = 0
) -> ModelInputs:
    """A batch of prompts, padded on the right with ids that would matter if they were read."""
    generator = torch.Generator().manual_seed(seed)
    rows = [token_ids(config, *counts, generator) for counts in zip(num_images, num_words, strict=True)]
    length, num_patches = max(map(len, rows)), GRID[0] * GRID[1]
    padded = [row + [config.image_patch_id] * (length - len(row)) for row in rows]
    valid = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])
    ids = torch.tensor(padded)
    is_image = torch.isin(ids, torch.tensor([IMAGE_START, IMAGE_END, config.image_patch_id]))
    pixels = torch.randint(0, 256, (sum(num_images), num_patches, config.vit_config.image_patch_size**2 * 3),
                           generator=generator)  # fmt: skip
    pooling = [window for image in range(sum(num_images)) for window in windows(image * num_patches)]
    return ModelInputs(
        token_ids=ids,
        image_mask=is_image & valid,
        valid=valid,
        crops=pixels / 127.5 - 1,
        pooling=torch.tensor(pooling, dtype=torch.long).reshape(-1, 4),
    )


def single(inputs: ModelInputs, row: int, num_images: Sequence[int] = (2, 1)) -> ModelInputs:
    """One prompt of a batch by itself, without padding."""
    length, before = int(inputs.valid[row].sum()), sum(num_images[:row])
    images = slice(before, before + num_images[row])
    cells, num_patches = len(windows(0)), inputs.crops.shape[1]
    pooling = inputs.pooling[images.start * cells : images.stop * cells]
    return ModelInputs(
        token_ids=inputs.token_ids[row : row + 1, :length],
        image_mask=inputs.image_mask[row : row + 1, :length],
        valid=inputs.valid[row : row + 1, :length],
        crops=inputs.crops[images],
        pooling=torch.where(pooling < 0, pooling, pooling - before * num_patches),
    )
