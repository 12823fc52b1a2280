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
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from molmoact2.model.layers import Linear
from molmoact2.model.losses import masked_sum

CENTER_M = (0.22, 0.0, 0.03)
HEADS_FILE = "pointing_heads.safetensors"
"""Beside the weights of a checkpoint that can still point, for the next stage of training; policies do not read it."""
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

    @property
    def has_place(self) -> Bool[Tensor, "b 2"]:
        """Whether the place of the named thing, and of the goal, is known."""
        row = torch.arange(len(self.named), device=self.named.device)
        has_goal = (self.goal >= 0) & self.is_present[row, self.goal]
        return torch.stack((self.is_present[row, self.named], has_goal), dim=1)

    @property
    def named_cell(self) -> Int[Tensor, "b v"]:
        """Which image token of each camera shows the named thing, -1 where it is not seen."""
        return self.cell[torch.arange(len(self.named), device=self.named.device), :, self.named]

    def counts(self) -> dict[str, float]:
        """Loss -> number of its valid elements."""
        has = self.has_place
        things = float((self.cell >= 0).sum())
        return {
            "place": float(has.sum()),
            "named": float((self.named_cell >= 0).sum()),
            "things": things,
            "thing_place": things,
            "error_m": float(has[:, 0].sum()),
        }

    def to(self, device: torch.device) -> "PointingLabels":
        """The same labels on another device."""
        return PointingLabels(**{name: value.to(device) for name, value in vars(self).items()})


class PointingHeads(nn.Module):
    """Small heads on the decoder's hidden states."""

    def __init__(self, width: int, num_things: int) -> None:
        super().__init__()
        self.place = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, 6))
        self.pointer_query = Linear(width, width)
        self.pointer_key = Linear(width, width)
        self.things = Linear(width, num_things)
        self.thing_place = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, 3 * num_things))

    @classmethod
    def new(cls, width: int, num_things: int, *, seed: int) -> "PointingHeads":
        """Untrained heads, the same for the same seed."""
        heads, generator = cls(width, num_things), torch.Generator().manual_seed(seed)
        for parameter in heads.parameters():
            deviation = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.0
            parameter.data.normal_(std=deviation, generator=generator)
        return heads

    @classmethod
    def load(cls, checkpoint: Path) -> "PointingHeads":
        """The heads that a run of ours left in its checkpoint.

        Raises:
            ValueError: there are none, or they are damaged.
        """
        try:
            tensors = load_file(checkpoint / HEADS_FILE)
            heads = cls(tensors["pointer_key.weight"].shape[0], tensors["things.weight"].shape[0])
            heads.load_state_dict(tensors)
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise ValueError(f"{checkpoint} has no usable {HEADS_FILE} ({error}). Train without pointing.") from error
        return heads

    def forward(
        self, trigger: Float[Tensor, "b d"], cells: Float[Tensor, "b v i d"]
    ) -> tuple[Float[Tensor, "b 2 3"], Float[Tensor, "b v i"], Float[Tensor, "b v i o"], Float[Tensor, "b v i o 3"]]:
        """Scaled positions of named thing and goal, pointer logits, thing logits, scaled positions of things."""
        query = self.pointer_query(trigger)[:, None, None]
        pointer = (query * self.pointer_key(cells)).float().sum(dim=-1) * trigger.shape[-1] ** -0.5
        places = self.thing_place(cells).float().unflatten(-1, (-1, 3))
        return self.place(trigger).float().unflatten(-1, (2, 3)), pointer, self.things(cells).float(), places


def pointing_losses(
    heads: PointingHeads, trigger: Float[Tensor, "b d"], cells: Float[Tensor, "b v i d"], labels: PointingLabels
) -> dict[str, Float[Tensor, ""]]:
    """Sums to be divided by `PointingLabels.counts`; `error_m` is the error of pointing at the named thing."""
    place, pointer, thing_logits, thing_places = heads(trigger, cells)
    row = torch.arange(len(labels.named), device=trigger.device)
    target = scale_place(labels.place_m)
    wanted = torch.stack((target[row, labels.named], target[row, labels.goal]), dim=1)
    has = labels.has_place
    index = labels.cell.clamp(min=0)[:, :, None, :, None].expand(-1, -1, 1, -1, 3)
    at_cell = thing_places.gather(2, index)[:, :, 0]  # [b, v, o, 3]
    thing_error = F.smooth_l1_loss(at_cell, target[:, None].expand_as(at_cell), reduction="none", beta=0.1).mean(-1)
    error_m = (place[:, 0] - wanted[:, 0]).detach().norm(dim=-1) * SCALE_M
    return {
        "place": masked_sum(F.smooth_l1_loss(place, wanted, reduction="none", beta=0.1).mean(-1), has),
        "named": known_cross_entropy(pointer, labels.named_cell),
        "things": known_cross_entropy(thing_logits.transpose(2, 3), labels.cell),
        "thing_place": masked_sum(thing_error, labels.cell >= 0),
        "error_m": masked_sum(error_m, has[:, 0]),
    }


def known_cross_entropy(logits: Float[Tensor, "*b i"], index: Int[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Sum of the cross-entropy over the entries whose index is not -1."""
    losses = F.cross_entropy(logits.flatten(0, -2), index.flatten().clamp(min=0), reduction="none")
    return masked_sum(losses, (index >= 0).flatten())


def scale_place(place_m: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Metres to the heads' units."""
    return (place_m - torch.tensor(CENTER_M, device=place_m.device)) / SCALE_M
