"""A prompt that is ready for the network, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int, UInt8

from molmoact2.model.inputs import ModelInputs
from molmoact2.processing.images import patches_of
from molmoact2.processing.layout import ImageBlock
from molmoact2.processing.settings import ImageSettings
from molmoact2.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One prompt, ready for the network."""

    prompt: str
    """The text, with one `<|image|>` for each image and without the first token."""
    token_ids: Int[np.ndarray, " s"]
    image_mask: Bool[np.ndarray, " s"]
    """True on image tokens, which attend to one another both ways."""
    crops: Float32[np.ndarray, "c p x"]
    """Normalised patches of every crop of every image, in order."""
    pooling: Int[np.ndarray, "i w"]
    """For each `<im_patch>` token the patches it pools: indices into the flattened (c p) axis of this prompt, -1 is
    none. (The reference counts from 0 again in every image.)"""

    @property
    def inputs(self) -> ModelInputs:
        """The prompt as a batch of one."""
        return collate([self])


def assemble(
    prompt: str,
    crops: Sequence[UInt8[np.ndarray, "_ height width 3"]],
    blocks: Sequence[ImageBlock],
    settings: ImageSettings,
    vocabulary: Vocabulary,
) -> Encoded:
    """Put one block of image tokens in the place of each `<|image|>` of a prompt, and the first token before it."""
    no_crops = np.empty((0, *settings.size, 3), np.uint8)
    no_windows = np.empty((0, settings.pooling[0] * settings.pooling[1]), np.int64)
    no_tokens = np.empty(0, np.int64)
    text_ids = np.concatenate(([vocabulary.end_of_turn], vocabulary.encode(prompt)))
    is_image = text_ids == vocabulary.image.placeholder
    lengths = np.ones(len(text_ids), np.int64)
    lengths[is_image] = [len(block.token_ids) for block in blocks]
    token_ids = np.repeat(text_ids, lengths)
    token_ids[np.repeat(is_image, lengths)] = np.concatenate([no_tokens, *(block.token_ids for block in blocks)])
    num_patches = [len(crop) * settings.grid[0] * settings.grid[1] for crop in crops]
    return Encoded(
        prompt=prompt,
        token_ids=token_ids,
        image_mask=np.isin(token_ids, vocabulary.image.attending_both_ways),
        crops=patches_of(np.concatenate((no_crops, *crops)), settings),
        pooling=count_through([no_windows, *(block.pooling for block in blocks)], [0, *num_patches]),
    )


def collate(batch: Sequence[Encoded], *, multiple: int = 1) -> ModelInputs:
    """Put prompts into one batch; shorter ones are padded on the right with id 0, which is never read.

    The number of tokens of all of them becomes a multiple of `multiple`.
    """
    lengths = np.array([len(encoded.token_ids) for encoded in batch])
    valid = np.arange(-(-lengths.max() // multiple) * multiple) < lengths[:, None]
    token_ids, image_mask = np.zeros(valid.shape, np.int64), np.zeros(valid.shape, bool)
    token_ids[valid] = np.concatenate([encoded.token_ids for encoded in batch])
    image_mask[valid] = np.concatenate([encoded.image_mask for encoded in batch])
    num_patches = [encoded.crops.shape[0] * encoded.crops.shape[1] for encoded in batch]
    return ModelInputs(
        token_ids=torch.from_numpy(token_ids),
        image_mask=torch.from_numpy(image_mask),
        valid=torch.from_numpy(valid),
        crops=torch.from_numpy(np.concatenate([encoded.crops for encoded in batch])),
        pooling=torch.from_numpy(count_through([encoded.pooling for encoded in batch], num_patches)),
    )


def count_through(poolings: Sequence[Int[np.ndarray, "_ w"]], num_patches: Sequence[int]) -> Int[np.ndarray, "i w"]:
    """Join pooling windows that each count their own patches from 0 into windows over all patches; -1 stays."""
    starts = np.cumsum([0, *num_patches[:-1]])
    shifted = [np.where(pooling < 0, -1, pooling + start) for pooling, start in zip(poolings, starts, strict=True)]
    return np.concatenate(shifted)
