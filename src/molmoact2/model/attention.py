"""Attention, its masks, and the memory of keys and values.

A mask is boolean, True where a query (row) may look at a key (column). The prompt of a robot policy, with two images of
two tokens each and five text tokens:

              image 1  image 2   text
    image 1     x x      x x               image tokens see all image tokens, before and after them
    image 2     x x      x x
    text        x x      x x    x
                x x      x x    x x        everything else is causal
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

LayerKeyValues = tuple[Float[Tensor, "b n s e"], Float[Tensor, "b n s e"]]


def attend(
    query: Float[Tensor, "b n q d"],
    key: Float[Tensor, "b m s d"],
    value: Float[Tensor, "b m s d"],
    mask: Bool[Tensor, "*c #q s"] | None = None,
) -> Float[Tensor, "b n q d"]:
    """Softmax attention, softmax in float32; n query heads share m key heads in groups (n a multiple of m)."""
    if query.device.type != "cpu" or not query.requires_grad:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    # Written out: torch's fused CPU kernel has a backward pass in bfloat16 that costs half a training step.
    groups = query.shape[1] // key.shape[1]
    query = rearrange(query * query.shape[-1] ** -0.5, "b (m g) q d -> b m g q d", g=groups)
    scores = (query @ key[:, :, None].transpose(-1, -2)).float()
    if mask is not None:
        scores = scores.masked_fill(~(mask[:, :, None] if mask.dim() == 4 else mask), float("-inf"))
    weights = scores.softmax(dim=-1).to(value.dtype)
    return rearrange(weights @ value[:, :, None], "b m g q d -> b (m g) q d")


def prompt_mask(
    image_mask: Bool[Tensor, "b s"], valid: Bool[Tensor, "b s"], segment: Int[Tensor, "b s"] | None = None
) -> Bool[Tensor, "b 1 s s"]:
    """Causal, with image tokens seeing one another both ways, and nobody looking at padding or into another segment."""
    num_tokens = valid.shape[1]
    causal = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=valid.device).tril()
    among_images = image_mask[:, :, None] & image_mask[:, None, :]
    # Padding sees itself, so that its softmax is finite; nobody reads the result.
    itself = torch.eye(num_tokens, dtype=torch.bool, device=valid.device)
    seen = (causal | among_images) & valid[:, None, :]
    if segment is not None:
        seen = seen & (segment[:, :, None] == segment[:, None, :])
    return (seen | itself)[:, None]


class KeyValueCache:
    """Keys and values of all layers in memory that is allocated once.

    Slots fill up from the left; `valid` tells which of them hold a token and not padding.
    """

    def __init__(
        self, shape: tuple[int, int, int, int, int], *, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        """Allocate for `shape` = (layers, batch, key heads, capacity in tokens, head width)."""
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.valid = torch.zeros((shape[1], shape[3]), dtype=torch.bool, device=device)
        self.length = 0

    def reserve(self, valid: Bool[Tensor, "b s"]) -> slice:
        """Claim the next slots for new tokens and return them.

        Raises:
            ValueError: the cache is full.
        """
        slots = slice(self.length, self.length + valid.shape[1])
        if slots.stop > self.valid.shape[1]:
            raise ValueError(f"The key-value cache holds {self.valid.shape[1]} tokens; {slots.stop} were asked for.")
        self.valid[:, slots] = valid
        self.length = slots.stop
        return slots

    def truncate(self, length: int) -> None:
        """Give back the slots from `length` on."""
        self.valid[:, length:] = False
        self.length = length

    def write(self, layer: int, slots: slice, keys: Tensor, values: Tensor) -> LayerKeyValues:
        """Store a layer's new keys and values [b n s d]; return those of all tokens up to them."""
        self.keys[layer, :, :, slots] = keys
        self.values[layer, :, :, slots] = values
        return self.keys[layer, :, :, : slots.stop], self.values[layer, :, :, : slots.stop]

    def layers(self) -> list[LayerKeyValues]:
        """Keys and values of every layer, up to the last token."""
        return [(k[:, :, : self.length], v[:, :, : self.length]) for k, v in zip(self.keys, self.values, strict=True)]

    def extension_mask(self, num_tokens: int) -> Bool[Tensor, "b 1 q s"]:
        """Mask of the `num_tokens` tokens that were reserved last: causal over all valid slots."""
        slots = torch.arange(self.length, device=self.valid.device)
        causal = slots[None, :] <= slots[-num_tokens:, None]
        return (causal & self.valid[:, None, : self.length])[:, None]
