"""The decoder: a Qwen3-style transformer with two embedding tables (architecture section 4)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from molmoact2.model.attention import KeyValueCache, LayerKeyValues, attend
from molmoact2.model.config import TextConfig
from molmoact2.model.layers import ACTIVATIONS, Linear, RMSNorm, rotary_angles, rotate


class TextAttention(nn.Module):
    """Grouped-query self-attention with QK-norm and rotary positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.query_width = config.num_attention_heads * config.head_dim
        self.key_width = config.num_key_value_heads * config.head_dim
        self.qkv = Linear(config.hidden_size, self.query_width + 2 * self.key_width, bias=config.qkv_bias)
        self.out = Linear(self.query_width, config.hidden_size, bias=False)
        self.is_normed_per_head = config.qk_norm_type == "qwen3"
        self.query_norm = self.key_norm = nn.Identity()
        if config.use_qk_norm:
            per_head = self.is_normed_per_head
            self.query_norm = RMSNorm(config.head_dim if per_head else self.query_width, config.layer_norm_eps)
            self.key_norm = RMSNorm(config.head_dim if per_head else self.key_width, config.layer_norm_eps)

    def project(
        self, x: Float[Tensor, "b s d"], angles: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "b n s h"], Float[Tensor, "b m s h"], Float[Tensor, "b m s h"]]:
        """Queries and keys, normed and rotated, and values."""
        query, key, value = self.qkv(x).split((self.query_width, self.key_width, self.key_width), dim=-1)
        if not self.is_normed_per_head:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (rearrange(part, "b s (n h) -> b n s h", h=self.head_dim) for part in (query, key, value))
        if self.is_normed_per_head:
            query, key = self.query_norm(query), self.key_norm(key)
        return rotate(query, angles), rotate(key, angles), value


class TextMLP(nn.Module):
    """Gated MLP with one fused input projection, up before gate."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.up_gate = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Apply the MLP to each token."""
        up, gate = self.up_gate(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


class TextBlock(nn.Module):
    """Attention and MLP, normed before or after (`norm_after`)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = TextAttention(config)
        self.attention_norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = TextMLP(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
        self.norm_after = config.norm_after

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        angles: tuple[Tensor, Tensor],
        mask: Bool[Tensor, "b 1 s t"],
        remember: "Remember",
        drop_rate: Float[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b s d"]:
        """Apply the block; `remember` stores the new keys and values and returns all that may be looked at."""
        query, key, value = self.attention.project(x if self.norm_after else self.attention_norm(x), angles)
        key, value = remember(key, value)
        mixed = self.attention.out(rearrange(attend(query, key, value, mask), "b n s h -> b s (n h)"))
        if self.norm_after:
            x = x + drop(self.attention_norm(mixed), drop_rate)
            return x + drop(self.mlp_norm(self.mlp(x)), drop_rate)
        x = x + drop(mixed, drop_rate)
        return x + drop(self.mlp(self.mlp_norm(x)), drop_rate)


def drop(x: Float[Tensor, "b s d"], rate: Float[Tensor, "b s"] | None) -> Float[Tensor, "b s d"]:
    """Residual dropout with a rate of its own for each token; None drops nothing."""
    if rate is None:
        return x
    keep = 1 - rate[..., None]
    return torch.where(torch.rand(x.shape, device=x.device) < keep, x / keep, 0).to(x.dtype)


class Remember:
    """Collects the keys and values of each layer, in a cache or, for training, in a list."""

    def __init__(self, cache: KeyValueCache | None, slots: slice | None) -> None:
        self.cache, self.slots = cache, slots
        self.layers: list[LayerKeyValues] = []

    def __call__(self, key: Tensor, value: Tensor) -> LayerKeyValues:
        """Store one layer [b n s d]; return keys and values of all tokens so far."""
        if self.cache is not None and self.slots is not None:
            key, value = self.cache.write(len(self.layers), self.slots, key, value)
        self.layers.append((key, value))
        return key, value


class TextDecoder(nn.Module):
    """Embeddings, blocks, final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(config.vocab_size, config.hidden_size))
        self.new_embedding = nn.Parameter(torch.zeros(config.additional_vocab_size, config.hidden_size))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
        self.config = config

    def embed(self, token_ids: Int[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        """Look ids up in the first table, and ids beyond it in the second."""
        vocab_size = self.config.vocab_size
        x = F.embedding(token_ids.clamp(max=vocab_size - 1), self.embedding)
        if self.config.additional_vocab_size == 0:
            return x
        new = F.embedding((token_ids - vocab_size).clamp(min=0), self.new_embedding)
        return torch.where((token_ids >= vocab_size)[..., None], new, x)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        positions: Int[Tensor, "b s"],
        mask: Bool[Tensor, "b 1 s t"],
        remember: Remember,
        drop_rate: Float[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b s d"]:
        """Hidden states after the final norm."""
        angles = rotary_angles(positions, self.config.head_dim, self.config.rope_theta)
        for block in self.blocks:
            x = block(x, angles, mask, remember, drop_rate)
        return self.norm(x)
