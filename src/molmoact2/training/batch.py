"""Encoded examples, laid out in rows, as one pass of the network takes them.

    row 0   prompt answer | prompt answer | padding          a token is known by its place in the flattened rows:
    row 1   prompt answer | padding                          row · tokens per row + column

The decoder reads rows. Everything else is per example, or per answer token, and is found by its flat place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from molmoact2.data.packing import pack
from molmoact2.model.inputs import ModelInputs
from molmoact2.processing.encoded import Encoded, collate, count_through
from molmoact2.training.config import StageConfig
from molmoact2.training.encode import ActionTarget, PointingTarget, TrainExample
from molmoact2.training.pointing import PointingLabels

ROW_MULTIPLE = 16
"""Rows are padded to a multiple of so many tokens, so that a compiled network meets few lengths."""


class OnDevice:
    """Values that move between devices together."""

    def to(self, device: torch.device):
        """The same values on another device."""
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor | OnDevice | ModelInputs | PointingLabels)
        }
        return replace(self, **moved)  # type: ignore[type-var]  # every subclass is a dataclass


@dataclass(frozen=True, kw_only=True)
class AnswerTokens(OnDevice):
    """n tokens that the network is to say, of all answers of a pass."""

    place: Int[Tensor, "n"]
    """Flat place of the token before, which predicts it."""
    token_id: Int[Tensor, "n"]
    weight: Float[Tensor, "n"]


@dataclass(frozen=True, kw_only=True)
class Chunks(OnDevice):
    """c action chunks that the expert is to learn, each from its own s prompt tokens."""

    place: Int[Tensor, "c s"]
    """Flat places of the prompt's tokens."""
    is_prompt: Bool[Tensor, "c s"]
    """False on padding."""
    actions: Float[Tensor, "c h a"]
    is_valid: Bool[Tensor, "c h"]
    action_dim: Int[Tensor, "c"]
    noise: Float[Tensor, "c k h a"]
    t: Float[Tensor, "c k"]


@dataclass(frozen=True, kw_only=True)
class Pointing(OnDevice):
    """p examples that say where things are."""

    trigger: Int[Tensor, "p"]
    """Flat place of the prompt's last token."""
    image_tokens: Int[Tensor, "p v i"]
    """Flat places of each camera's image tokens."""
    labels: PointingLabels


@dataclass(frozen=True, kw_only=True)
class TrainBatch(OnDevice):
    """What one pass of the network learns from."""

    inputs: ModelInputs
    drop_rate: Float[Tensor, "b s"] | None
    """Residual dropout of each token; None for none."""
    answers: AnswerTokens
    chunks: Chunks | None
    pointing: Pointing | None
    weights: Mapping[str, float]
    """Loss -> how much of it is in this pass; the mean over a step divides by their sum over passes and ranks."""
    origins: tuple[str, ...]
    """Where the examples are from, for messages."""


def make_batches(examples: Sequence[TrainExample], stage: StageConfig) -> list[TrainBatch]:
    """Lay out the examples of a step in rows, and the rows in passes."""
    rows = [[index] for index in range(len(examples))]
    if stage.tokens_per_row is not None:
        rows = pack([len(example) for example in examples], stage.tokens_per_row)
    per_pass = stage.rows_per_pass or len(rows)
    passes = [rows[first : first + per_pass] for first in range(0, len(rows), per_pass)]
    return [make_batch([[examples[index] for index in row] for row in rows], stage) for rows in passes]


def make_batch(rows: Sequence[Sequence[TrainExample]], stage: StageConfig) -> TrainBatch:
    """One pass of these rows."""
    joined = [joined_row(row) for row in rows]
    inputs = collate(joined, multiple=ROW_MULTIPLE)
    width = inputs.token_ids.shape[1]
    examples = [example for row in rows for example in row]
    begins = np.concatenate([number * width + row_begins(row) for number, row in enumerate(rows)])
    is_packed = any(len(row) > 1 for row in rows)
    answers, chunks, pointing = (
        answer_tokens(examples, begins),
        chunks_of(examples, begins),
        pointing_of(examples, begins),
    )
    return TrainBatch(
        inputs=replace(inputs, segment=segments(rows, width) if is_packed else None),
        drop_rate=drop_rates(examples, begins, (len(rows), width), stage.residual_dropout),
        answers=answers,
        chunks=chunks,
        pointing=pointing,
        weights=loss_weights(answers, chunks, pointing),
        origins=tuple(example.origin for example in examples),
    )


def joined_row(row: Sequence[TrainExample]) -> Encoded:
    """The examples of a row as one."""
    parts = [example.encoded for example in row]
    num_patches = [part.crops.shape[0] * part.crops.shape[1] for part in parts]
    return Encoded(
        prompt="",
        token_ids=np.concatenate([part.token_ids for part in parts]),
        image_mask=np.concatenate([part.image_mask for part in parts]),
        crops=np.concatenate([part.crops for part in parts]),
        pooling=count_through([part.pooling for part in parts], num_patches),
    )


def row_begins(row: Sequence[TrainExample]) -> Int[np.ndarray, " e"]:
    """Column at which each example of a row begins."""
    return np.cumsum([0, *(len(example) for example in row[:-1])])


def segments(rows: Sequence[Sequence[TrainExample]], width: int) -> Int[Tensor, "b s"]:
    """Which example of its row each token belongs to; padding belongs to the last."""
    counted = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        counted[number, row_begins(row)[1:]] = 1
    return torch.from_numpy(counted.cumsum(axis=1))


def answer_tokens(examples: Sequence[TrainExample], begins: Int[np.ndarray, " e"]) -> AnswerTokens:
    """The tokens that are to be said."""
    none = np.empty(0, np.int64)
    places = [begin + np.arange(e.num_prompt, len(e)) - 1 for e, begin in zip(examples, begins, strict=True)]
    token_ids = [example.answer for example in examples]
    return AnswerTokens(
        place=torch.from_numpy(np.concatenate([none, *places])),
        token_id=torch.from_numpy(np.concatenate([none, *token_ids])),
        weight=torch.from_numpy(np.concatenate([np.empty(0, np.float32), *(e.label_weight for e in examples)])),
    )


def chunks_of(examples: Sequence[TrainExample], begins: Int[np.ndarray, " e"]) -> Chunks | None:
    """The chunks of those examples that have one, padded to the longest."""
    found = [(e.action, e.num_seen, begin) for e, begin in zip(examples, begins, strict=True) if e.action is not None]
    if not found:
        return None
    targets: list[ActionTarget] = [target for target, _, _ in found]
    prompts = np.array([(length, begin) for _, length, begin in found])
    column = np.arange(prompts[:, 0].max())
    is_prompt = column < prompts[:, :1]
    horizon = max(len(target.actions) for target in targets)

    def padded(arrays: Sequence[np.ndarray], axis: int) -> Tensor:
        missing = [horizon - array.shape[axis] for array in arrays]
        widths = [
            [(0, gap if side == axis else 0) for side in range(a.ndim)] for a, gap in zip(arrays, missing, strict=True)
        ]
        return torch.from_numpy(np.stack([np.pad(a, w) for a, w in zip(arrays, widths, strict=True)]))

    return Chunks(
        place=torch.from_numpy(np.where(is_prompt, prompts[:, 1:] + column, prompts[:, 1:])),
        is_prompt=torch.from_numpy(is_prompt),
        actions=padded([target.actions for target in targets], 0),
        is_valid=padded([target.is_valid for target in targets], 0),
        action_dim=torch.tensor([target.action_dim for target in targets]),
        noise=padded([target.noise for target in targets], 1),
        t=torch.from_numpy(np.stack([target.t for target in targets])),
    )


def pointing_of(examples: Sequence[TrainExample], begins: Int[np.ndarray, " e"]) -> Pointing | None:
    """The targets of those examples that say where things are."""
    found = [(e.pointing, begin) for e, begin in zip(examples, begins, strict=True) if e.pointing is not None]
    if not found:
        return None
    targets: list[PointingTarget] = [target for target, _ in found]
    places = [target.places for target in targets]
    return Pointing(
        trigger=torch.tensor([begin + target.trigger for target, begin in found]),
        image_tokens=torch.from_numpy(np.stack([begin + target.image_tokens for target, begin in found])),
        labels=PointingLabels(
            place_m=torch.from_numpy(np.stack([p.place_m for p in places])),
            is_present=torch.from_numpy(np.stack([p.is_present for p in places])),
            cell=torch.from_numpy(np.stack([target.cell for target in targets])),
            named=torch.tensor([p.named for p in places]),
            goal=torch.tensor([p.goal for p in places]),
        ),
    )


def drop_rates(
    examples: Sequence[TrainExample], begins: Int[np.ndarray, " e"], shape: tuple[int, int], rate: float
) -> Float[Tensor, "b s"] | None:
    """Dropout at the tokens of prompts, none at those of answers."""
    if not rate:
        return None
    rates = np.full(shape[0] * shape[1], rate, np.float32)
    for example, begin in zip(examples, begins, strict=True):
        rates[begin + example.num_prompt : begin + len(example)] = 0
    return torch.from_numpy(rates.reshape(shape))


def loss_weights(answers: AnswerTokens, chunks: Chunks | None, pointing: Pointing | None) -> dict[str, float]:
    """How much there is of each loss."""
    weights = {"language": float(answers.weight.sum()), "z": float(answers.weight.sum())}
    if chunks is not None:
        weights["flow"] = float((chunks.is_valid.sum(dim=1) * chunks.action_dim).sum() * chunks.t.shape[1])
    return weights if pointing is None else weights | pointing.labels.counts()
