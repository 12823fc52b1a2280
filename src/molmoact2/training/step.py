"""One pass of a training step: a batch through the network, and the sums of its losses."""

from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from molmoact2.model import flow
from molmoact2.model.attention import LayerKeyValues
from molmoact2.model.losses import flow_loss, language_losses
from molmoact2.model.molmoact2 import Encoding, MolmoAct2
from molmoact2.training.batch import Chunks, Pointing, TrainBatch
from molmoact2.training.pointing import PointingHeads, pointing_losses

LOGGED_ONLY = ("error_m",)
"""What is measured like a loss, but not descended."""


def loss_sums(
    model: MolmoAct2,
    heads: PointingHeads | None,
    batch: TrainBatch,
    *,
    grid: tuple[int, int],
    dtype: torch.dtype,
    insulate: bool,
) -> dict[str, Float[Tensor, ""]]:
    """Every loss that the batch has something for, summed; `TrainBatch.weights` says what to divide by.

    `grid` = (rows, columns) of patches in a crop; `insulate` keeps the expert's gradient out of the decoder.
    """
    features = model.image_features(batch.inputs, grid, dtype)
    encoding = model.read(batch.inputs, features, drop_rate=batch.drop_rate)
    answers = batch.answers
    logits = model.logits(encoding.hidden.flatten(0, 1)[answers.place])
    language, z = language_losses(logits, answers.token_id, answers.weight)
    # The ranks of a sharded run must all go back through both towers, also one whose share has nothing to say.
    sums = {"language": language, "z": z + 0 * (features.sum() + encoding.hidden.sum())}
    if batch.chunks is not None:
        sums["flow"] = action_loss(model, batch, batch.chunks, encoding, insulate=insulate)
    if batch.pointing is not None and heads is not None:
        trigger, cells = read_out(batch.pointing, encoding)
        sums |= pointing_losses(heads, trigger, cells, batch.pointing.labels)
    return sums


def total_loss(
    sums: Mapping[str, Float[Tensor, ""]], losses: Mapping[str, float], divisors: Mapping[str, float]
) -> Float[Tensor, ""]:
    """What to descend: each sum divided by how much of it the whole step has, times its factor."""
    parts = [losses[name] / divisors[name] * value for name, value in sums.items() if name not in LOGGED_ONLY]
    return torch.stack(parts).sum()


def read_out(pointing: Pointing, encoding: Encoding) -> tuple[Float[Tensor, "p d"], Float[Tensor, "p v i d"]]:
    """Hidden states of the triggers and of the image tokens."""
    hidden = encoding.hidden.flatten(0, 1)
    return hidden[pointing.trigger], hidden[pointing.image_tokens]


def action_loss(
    model: MolmoAct2, batch: TrainBatch, chunks: Chunks, encoding: Encoding, *, insulate: bool
) -> Float[Tensor, ""]:
    """Flow-matching loss; every chunk sees its own prompt only, and all its samples share that."""
    expert = model.action_expert
    if expert is None:
        raise ValueError("This network has no action expert. Set flow_samples=0 to train without one.")
    layers = [take(layer, chunks.place, insulate=insulate) for layer in encoding.layers]
    token_ids = batch.inputs.token_ids.flatten()[chunks.place]
    context = model.expert_context(layers, token_ids, chunks.is_prompt)
    actions = chunks.actions[:, None].expand_as(chunks.noise)
    x_t, u_t = flow.interpolate(chunks.noise, actions, chunks.t)
    velocity = expert.velocity(x_t, model.modulation(chunks.t, encoding.hidden.dtype), context, chunks.is_valid)
    return flow_loss(velocity, u_t, chunks.is_valid, chunks.action_dim)


def take(
    layer: LayerKeyValues, place: Int[Tensor, "c t"], *, insulate: bool
) -> tuple[Float[Tensor, "c n t e"], Float[Tensor, "c n t e"]]:
    """Keys and values of the tokens at flat places [c t], out of those of all rows [b n s d]."""
    seen = (part.detach() if insulate else part for part in layer)
    key, value = (rearrange(rearrange(p, "b n s d -> (b s) n d")[place], "c t n d -> c n t d") for p in seen)
    return key, value
