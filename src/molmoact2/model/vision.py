"""The vision transformer: patches of pixels to features (architecture section 3)."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from molmoact2.model.attention import attend
from molmoact2.model.config import VisionConfig
from molmoact2.model.layers import ACTIVATIONS, LayerNorm, Linear


class VisionAttention(nn.Module):
    """Self-attention among the patches of one crop."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, query_width = config.hidden_size, config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.head_dim = config.head_dim
        self.query = Linear(width, query_width)
        self.key = Linear(width, key_width)
        self.value = Linear(width, key_width)
        self.out = Linear(query_width, width)

    def forward(self, x: Float[Tensor, "c p d"]) -> Float[Tensor, "c p d"]:
        """Let every patch look at every patch of its crop."""
        heads = (
            rearrange(part(x), "c p (n h) -> c n p h", h=self.head_dim) for part in (self.query, self.key, self.value)
        )
        return self.out(rearrange(attend(*heads), "c n p h -> c p (n h)"))


class VisionMLP(nn.Module):
    """Two layers with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.up = Linear(config.hidden_size, config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "c p d"]) -> Float[Tensor, "c p d"]:
        """Apply the MLP to each patch."""
        return self.down(self.activation(self.up(x)))


class VisionBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VisionAttention(config)
        self.mlp_norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, x: Float[Tensor, "c p d"]) -> Float[Tensor, "c p d"]:
        """Apply the block."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class VisionTransformer(nn.Module):
    """ViT without a class token, cut off after the deepest layer that is read."""

    def __init__(self, config: VisionConfig, layers: tuple[int, ...]) -> None:
        """`layers`: indices from 0 of the layers whose features are wanted, in the wanted order."""
        super().__init__()
        self.patch_embedding = Linear(config.image_patch_size**2 * 3, config.hidden_size)
        self.positional_embedding = nn.Parameter(torch.zeros(config.image_num_pos, config.hidden_size))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(max(layers) + 1))
        self.layers = layers

    def forward(
        self, crops: Float[Tensor, "c p x"], grid: tuple[int, int], dtype: torch.dtype
    ) -> Float[Tensor, "c p f"]:
        """Features of the wanted layers, concatenated on the channel axis.

        `crops` are pixels in [-1, 1] in patches, row by row over the `grid` (rows, columns). They are rounded to
        8-bit levels first, as the reference does, so that a normalised image and its bytes give the same features.
        """
        levels = ((crops.float() + 1) / 2 * 255).round()
        x = self.patch_embedding((levels / 255 * 2 - 1).to(dtype))
        x = x + resize_positions(self.positional_embedding, grid).to(dtype)
        features = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.layers:
                features[index] = x
        return torch.cat([features[index] for index in self.layers], dim=-1)


def resize_positions(table: Float[Tensor, "q d"], grid: tuple[int, int]) -> Float[Tensor, "p d"]:
    """The square position table at another (rows, columns) grid: bicubic with antialiasing, in float32."""
    side = math.isqrt(table.shape[0])
    if grid == (side, side):
        return table
    image = rearrange(table.float(), "(r c) d -> 1 d r c", r=side)
    image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return rearrange(image, "1 d r c -> (r c) d")
