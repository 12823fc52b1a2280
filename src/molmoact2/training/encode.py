"""From raw examples to what the network and the losses read; training encodes with the policy's own processor."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from molmoact2.data.augmentation import Photometric
from molmoact2.model.inputs import ModelInputs
from molmoact2.processing.encoded import collate
from molmoact2.processing.processor import Processor
from molmoact2.training.examples import Examples
from molmoact2.training.pointing import PointingLabels

STATE_JITTER_BINS = 1.0
"""The state is moved by up to this many bins, so that no single bin is learned by heart."""


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """One batch of a training step."""

    inputs: ModelInputs
    trigger: Int[Tensor, "b"]
    """Index of each prompt's last token, which asks for the action."""
    cells: Int[Tensor, "b v i"]
    """Indices of each camera's `<im_patch>` tokens in the prompt."""
    actions: Float[Tensor, "b h a"]
    """Normalised and padded."""
    is_valid: Bool[Tensor, "b h"]
    action_dim: Int[Tensor, "b"]
    labels: PointingLabels

    def to(self, device: torch.device) -> "TrainBatch":
        """The same batch on another device."""
        labels = PointingLabels(**{name: value.to(device) for name, value in vars(self.labels).items()})
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, inputs=self.inputs.to(device), labels=labels, **tensors)


@dataclass(frozen=True, kw_only=True)
class BatchEncoder:
    """Encodes examples of one robot."""

    processor: Processor
    tag: str
    max_action_dim: int
    augment: Photometric | None
    """None leaves images and states as they are, for measuring."""

    def __call__(self, examples: Examples, rng: np.random.Generator) -> TrainBatch:
        """Encode one batch; everything random comes from `rng`."""
        stats, words = self.processor.tag(self.tag), self.processor.vocabulary
        state = stats.state_scaling.normalize(examples.state)
        images = torch.from_numpy(examples.images)
        if self.augment is not None and words.state is not None:
            bin_width = 2 / (words.state.count - 1)
            state = state + rng.uniform(-1, 1, state.shape) * STATE_JITTER_BINS * bin_width
            views = images.shape[1]
            images = self.augment(rearrange(images, "b v h w c -> (b v) h w c"), rng)
            images = rearrange(images, "(b v) h w c -> b v h w c", v=views)
        prompts = [
            self.processor.encode_prompt(images=views, instruction=text, normalized_state=row, embodiment=self.tag)
            for views, text, row in zip(images.numpy(), examples.instruction, state, strict=True)
        ]
        inputs = collate(prompts)
        return TrainBatch(
            inputs=inputs,
            trigger=inputs.valid.sum(dim=1) - 1,
            cells=patch_positions(inputs, words.image.patch, images.shape[1]),
            actions=self._actions(examples),
            is_valid=torch.from_numpy(examples.is_valid),
            action_dim=torch.full((len(prompts),), examples.actions.shape[-1]),
            labels=self._labels(examples),
        )

    def _actions(self, examples: Examples) -> Float[Tensor, "b h a"]:
        normalized = self.processor.tag(self.tag).action_scaling.normalize(examples.actions)
        padding = self.max_action_dim - normalized.shape[-1]
        return torch.from_numpy(np.pad(normalized, ((0, 0), (0, 0), (0, padding))))

    def _labels(self, examples: Examples) -> PointingLabels:
        settings = self.processor.images
        rows, columns = (side // pool for side, pool in zip(settings.grid, settings.pooling, strict=True))
        column, row = np.floor(np.moveaxis(examples.pixel, -1, 0) * np.array((columns, rows)).reshape(2, 1, 1, 1))
        seen = (examples.pixel >= 0).all(axis=-1) & examples.is_present[:, None]
        cell = np.clip(row, 0, rows - 1) * columns + np.clip(column, 0, columns - 1)
        return PointingLabels(
            place_m=torch.from_numpy(examples.place_m),
            is_present=torch.from_numpy(examples.is_present),
            cell=torch.from_numpy(np.where(seen, cell, -1).astype(np.int64)),
            named=torch.from_numpy(examples.named),
            goal=torch.from_numpy(examples.goal),
        )


def patch_positions(inputs: ModelInputs, patch_id: int, num_views: int) -> Int[Tensor, "b v i"]:
    """Where each camera's image tokens stand in the prompts; every prompt has the same number of them."""
    is_patch = inputs.token_ids == patch_id
    positions = is_patch.nonzero()[:, 1]
    return rearrange(positions, "(b v i) -> b v i", b=len(is_patch), v=num_views)
