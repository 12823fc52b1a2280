"""One training step: a batch through the network, its losses, and their gradients."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from molmoact2.model import flow
from molmoact2.model.config import ModelConfig
from molmoact2.model.losses import flow_loss
from molmoact2.model.molmoact2 import Encoding, MolmoAct2
from molmoact2.training.config import PointingWeights, StageConfig
from molmoact2.training.encode import TrainBatch
from molmoact2.training.pointing import PointingHeads, pointing_losses


def encode(model: MolmoAct2, batch: TrainBatch, grid: tuple[int, int], dtype: torch.dtype) -> Encoding:
    """The batch's prompts through vision tower and decoder; `grid` = (rows, columns) of patches."""
    return model.read(batch.inputs, model.image_features(batch.inputs, grid, dtype))


def read_out(batch: TrainBatch, encoding: Encoding) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b v i d"]]:
    """Hidden states of the triggers and of the image tokens, for the pointing heads."""
    row = torch.arange(len(batch.trigger), device=batch.trigger.device)
    return encoding.hidden[row, batch.trigger], encoding.hidden[row[:, None, None], batch.cells]


def flow_times(shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator) -> Float[Tensor, "..."]:
    """Training times offset + scale · Beta(alpha, beta), denser near noise (training F.2)."""
    spread = min(config.flow_matching_cutoff, 1.0) - config.flow_matching_time_offset
    beta = rng.beta(config.flow_matching_beta_alpha, config.flow_matching_beta_beta, shape)
    return torch.from_numpy((config.flow_matching_time_offset + spread * beta).astype(np.float32))


def action_loss(
    model: MolmoAct2,
    batch: TrainBatch,
    encoding: Encoding,
    *,
    num_frames: int,
    num_samples: int,
    rng: np.random.Generator,
) -> Float[Tensor, ""]:
    """Flow-matching loss of the first `num_frames` examples, with `num_samples` draws of noise and time each."""
    expert, config = model.action_expert, model.config
    assert expert is not None
    inputs, actions = batch.inputs, batch.actions[:num_frames]
    layers = [(key[:num_frames], value[:num_frames]) for key, value in encoding.layers]
    context = model.expert_context(layers, inputs.token_ids[:num_frames], inputs.valid[:num_frames])
    shape = (num_frames, num_samples, *actions.shape[1:])
    noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(actions.device)
    if config.mask_action_dim_padding:
        noise = noise * (
            torch.arange(shape[-1], device=actions.device) < batch.action_dim[:num_frames, None, None, None]
        )
    t = flow_times(shape[:2], config, rng).to(actions.device)
    x_t, u_t = flow.interpolate(noise, actions[:, None].expand(shape), t)
    valid_steps = batch.is_valid[:num_frames]
    velocity = expert.velocity(x_t, model.modulation(t, encoding.hidden.dtype), context, valid_steps)
    return flow_loss(velocity, u_t, valid_steps, batch.action_dim[:num_frames])


def batch_losses(
    model: MolmoAct2,
    heads: PointingHeads,
    batch: TrainBatch,
    *,
    stage: StageConfig,
    pointing: PointingWeights,
    dtype: torch.dtype,
    grid: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The loss to descend, and its parts by name."""
    encoding = encode(model, batch, grid, dtype)
    total, parts = pointing_losses(heads, *read_out(batch, encoding), batch.labels, pointing)
    total = stage.pointing_weight * total
    if stage.frames_per_step:
        parts["flow"] = action_loss(
            model, batch, encoding, num_frames=stage.frames_per_step, num_samples=stage.flow_samples, rng=rng
        )
        total = total + stage.flow_weight * parts["flow"]
    return total, parts


def descend(
    loss: Float[Tensor, ""], optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float
) -> Float[Tensor, ""]:
    """Move the parameters once; return the norm of the gradient before it was clipped.

    Raises:
        FloatingPointError: the gradient is not finite; the parameters are then unchanged.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not torch.isfinite(norm):
        raise FloatingPointError(f"The gradient's norm is {norm}. Lower the learning rate or look at the data.")
    optimizer.step()
    return norm
