"""Embodied reasoning in small: say where things are, before and while learning to act.

Flow matching alone learns nothing in minutes, because nothing tells the small decoder which cube the words mean. These
losses do (the nano counterpart of the Molmo2-ER stage, paper section 2). Their heads read the decoder's last hidden
states and are dropped on export:

    place    trigger token            -> position of what the instruction names, and of its goal     [metres]
    named    trigger x image tokens   -> which image token shows what the instruction names          per camera
    things   image tokens             -> which one shows each thing, and from there its position     per camera

A thing is a fixed class such as "red cube"; a scene holds each class at most once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from molmoact2.model.layers import Linear
from molmoact2.model.losses import masked_mean
from molmoact2.training.config import PointingWeights

CENTER_M = (0.22, 0.0, 0.03)
SCALE_M = 0.1
"""Positions are predicted relative to the middle of the workspace, in units of 10 cm."""


@dataclass(frozen=True, kw_only=True)
class PointingLabels:
    """Where things are; o things, v cameras."""

    place_m: Float[Tensor, "b o 3"]
    """Positions in the robot's base frame; any value where not present."""
    is_present: Bool[Tensor, "b o"]
    cell: Int[Tensor, "b v o"]
    """Which image token of a camera shows the thing, -1 where that is unknown or the camera does not see it."""
    named: Int[Tensor, "b"]
    """Index of the thing that the instruction names."""
    goal: Int[Tensor, "b"]
    """Index of the thing that it is to be brought to, -1 where there is none."""


class PointingHeads(nn.Module):
    """Small heads on the decoder's hidden states."""

    def __init__(self, width: int, num_things: int) -> None:
        super().__init__()
        self.place = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, 6))
        self.pointer_query = Linear(width, width)
        self.pointer_key = Linear(width, width)
        self.things = Linear(width, num_things)
        self.thing_place = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, 3 * num_things))

    def forward(
        self, trigger: Float[Tensor, "b d"], cells: Float[Tensor, "b v i d"]
    ) -> tuple[Float[Tensor, "b 2 3"], Float[Tensor, "b v i"], Float[Tensor, "b v i o"], Float[Tensor, "b v i o 3"]]:
        """Scaled positions of named thing and goal, pointer logits, thing logits, scaled positions of things."""
        query = self.pointer_query(trigger)[:, None, None]
        pointer = (query * self.pointer_key(cells)).float().sum(dim=-1) * trigger.shape[-1] ** -0.5
        places = self.thing_place(cells).float().unflatten(-1, (-1, 3))
        return self.place(trigger).float().unflatten(-1, (2, 3)), pointer, self.things(cells).float(), places


def pointing_losses(
    heads: PointingHeads,
    trigger: Float[Tensor, "b d"],
    cells: Float[Tensor, "b v i d"],
    labels: PointingLabels,
    weights: PointingWeights,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The weighted sum, and what to log: each loss, and the error in metres of pointing at the named thing."""
    place, pointer, thing_logits, thing_places = heads(trigger, cells)
    row = torch.arange(len(labels.named), device=trigger.device)
    target = scale_place(labels.place_m)
    wanted = torch.stack((target[row, labels.named], target[row, labels.goal]), dim=1)
    has = torch.stack((labels.is_present[row, labels.named], labels.goal >= 0), dim=1)
    place_loss = masked_mean(F.smooth_l1_loss(place, wanted, reduction="none", beta=0.1).mean(-1), has)

    named_cell = labels.cell[row, :, labels.named]  # [b, v]
    named_loss = masked_cross_entropy(pointer, named_cell)

    per_thing = thing_logits.transpose(2, 3)  # [b, v, o, i]
    things_loss = masked_cross_entropy(per_thing, labels.cell)
    index = labels.cell.clamp(min=0)[:, :, None, :, None].expand(-1, -1, 1, -1, 3)
    at_cell = thing_places.gather(2, index)[:, :, 0]  # [b, v, o, 3]
    error = F.smooth_l1_loss(at_cell, target[:, None].expand_as(at_cell), reduction="none", beta=0.1).mean(-1)
    things_loss = things_loss + masked_mean(error, labels.cell >= 0)

    total = weights.place * place_loss + weights.named * named_loss + weights.things * things_loss
    error_m = (place[:, 0] - wanted[:, 0]).detach().norm(dim=-1) * SCALE_M
    logged = {"place": place_loss, "named": named_loss, "things": things_loss}
    return total, {**logged, "error_m": masked_mean(error_m, has[:, 0])}


def masked_cross_entropy(logits: Float[Tensor, "*b i"], index: Int[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the entries whose index is not -1."""
    losses = F.cross_entropy(logits.flatten(0, -2), index.flatten().clamp(min=0), reduction="none")
    return masked_mean(losses, (index >= 0).flatten())


def scale_place(place_m: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Metres to the heads' units."""
    return (place_m - torch.tensor(CENTER_M, device=place_m.device)) / SCALE_M
