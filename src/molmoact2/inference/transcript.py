"""Prompts and what was said after them: the cache of keys and values grows as it goes on, and can be taken back."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from molmoact2.model.attention import KeyValueCache, LayerKeyValues
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2


@dataclass(kw_only=True)
class Transcript:
    """A batch of prompts, as far as the network has read and said them."""

    model: MolmoAct2
    cache: KeyValueCache
    token_ids: Int[Tensor, "b s"]
    """Everything so far, one token for each slot of the cache in use."""

    @classmethod
    def begin(
        cls, model: MolmoAct2, inputs: ModelInputs, image_features: Float[Tensor, "i d"], *, room: int
    ) -> tuple["Transcript", Float[Tensor, "b s d"]]:
        """Read prompts, leaving `room` for tokens after them; also returns the hidden states."""
        text, (batch, length) = model.config.text_config, inputs.token_ids.shape
        shape = (text.num_hidden_layers, batch, text.num_key_value_heads, length + room, text.head_dim)
        cache = KeyValueCache(shape, dtype=image_features.dtype, device=model.device)
        encoding = model.read(inputs, image_features, cache)
        return cls(model=model, cache=cache, token_ids=inputs.token_ids), encoding.hidden

    def extend(self, token_ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Append known tokens, all in one pass; returns their hidden states."""
        hidden = self.model.extend(token_ids, self.cache)
        self.token_ids = torch.cat((self.token_ids, token_ids), dim=1)
        return hidden

    def rewind(self, length: int) -> None:
        """Forget everything behind the first `length` slots."""
        self.cache.truncate(length)
        self.token_ids = self.token_ids[:, :length]

    def context(self) -> tuple[list[LayerKeyValues], Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
        """Keys and values, ids and validity of everything so far, as the action expert wants them."""
        return self.cache.layers(), self.token_ids, self.cache.valid[:, : self.cache.length]
