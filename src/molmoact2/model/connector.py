"""The connector: windows of patches to image tokens of the decoder's width (architecture section 3)."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from molmoact2.model.attention import attend
from molmoact2.model.config import ConnectorConfig
from molmoact2.model.layers import Linear, SwiGLU


class AttentionPooling(nn.Module):
    """The mean of a window looks at the window's patches."""

    def __init__(self, config: ConnectorConfig, input_width: int) -> None:
        super().__init__()
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.head_dim = config.head_dim
        self.is_masked = config.pooling_attention_mask
        self.query = Linear(input_width, query_width)
        self.key = Linear(input_width, key_width)
        self.value = Linear(input_width, key_width)
        self.out = Linear(query_width, config.hidden_size)

    def forward(self, features: Float[Tensor, "p f"], pooling: Int[Tensor, "i w"]) -> Float[Tensor, "i d"]:
        """Pool `features` by windows of indices; -1 marks a patch that the window lacks, which counts as zeros."""
        present = pooling >= 0
        window = features[pooling.clamp(min=0)] * present[..., None].to(features.dtype)  # [i, w, f]
        if self.is_masked:
            count = present.sum(dim=1, keepdim=True).clamp(min=1)
            mean = (window.float().sum(dim=1) / count).to(features.dtype)
            mask = present[:, None, None, :]
        else:
            mean, mask = window.float().mean(dim=1).to(features.dtype), None
        query = rearrange(self.query(mean), "i (n h) -> i n 1 h", h=self.head_dim)
        key, value = (
            rearrange(part(window), "i w (n h) -> i n w h", h=self.head_dim) for part in (self.key, self.value)
        )
        return self.out(rearrange(attend(query, key, value, mask), "i n 1 h -> i (n h)"))


class Connector(nn.Module):
    """Attention pooling, then a gated projection to the decoder's width."""

    def __init__(self, config: ConnectorConfig, input_width: int) -> None:
        super().__init__()
        self.pooling = AttentionPooling(config, input_width)
        self.projector = SwiGLU(config.hidden_size, config.intermediate_size, config.text_hidden_size, bias=False,
                                activation=config.hidden_act)  # fmt: skip

    def forward(self, features: Float[Tensor, "c p f"], pooling: Int[Tensor, "i w"]) -> Float[Tensor, "i d"]:
        """One feature per image token; `pooling` indexes the flattened (c p) axis."""
        return self.projector(self.pooling(torch.flatten(features, 0, 1), pooling))
