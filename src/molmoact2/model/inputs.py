"""What the network reads. The letters of every shape in this package:

b batch   s tokens   v views (images)   c crops   p patches   i image tokens   w patches of one pooling window
h action horizon     a action width     n heads   d width     l layer          k flow samples
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """A batch of encoded prompts. Shorter ones are padded on the right; for training, a row may hold several."""

    token_ids: Int[Tensor, "b s"]
    """Padding holds any id; it is never read."""
    image_mask: Bool[Tensor, "b s"]
    """True on image tokens (patch, column, start and end tokens), which attend to one another both ways."""
    valid: Bool[Tensor, "b s"]
    """False on padding."""
    crops: Float[Tensor, "c p x"]
    """Pixels of every crop of every image of the batch, in order, cut into patches of x = patch_size² · 3 values."""
    pooling: Int[Tensor, "i w"]
    """For each `<im_patch>` token of the batch, in order, the patches it pools: indices into the flattened
    (c p) axis, -1 where the window reaches over the edge."""
    segment: Int[Tensor, "b s"] | None = None
    """Which of its row's prompts a token belongs to, counted up from 0; they do not see one another. None where every
    row holds one prompt."""

    @property
    def positions(self) -> Int[Tensor, "b s"]:
        """Place of each token in its own prompt, for the rotary positions; any value on padding."""
        place = (self.valid.cumsum(1) - 1).clamp(min=0)
        if self.segment is None:
            return place
        begins = self.segment.diff(dim=1, prepend=self.segment[:, :1] - 1) != 0
        return place - torch.where(begins, place, 0).cummax(dim=1).values

    def followed_by(self, token_ids: Int[Tensor, "b n"]) -> "ModelInputs":
        """The same prompts, each with text tokens behind it; padding of shorter prompts stays in between."""
        more = torch.ones_like(token_ids, dtype=torch.bool)
        return replace(
            self,
            token_ids=torch.cat((self.token_ids, token_ids), dim=1),
            image_mask=torch.cat((self.image_mask, ~more), dim=1),
            valid=torch.cat((self.valid, more), dim=1),
        )

    def to(self, device: torch.device | str) -> "ModelInputs":
        """The same inputs on another device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if value is not None})
