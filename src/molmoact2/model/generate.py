"""Greedy decoding with a cache, free or restricted to a set of tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from molmoact2.model.attention import KeyValueCache
from molmoact2.model.molmoact2 import MolmoAct2


class DecodingError(ValueError):
    """A checkpoint that does not end what it was asked to decode."""


def feed(model: MolmoAct2, cache: KeyValueCache, token_ids: list[int]) -> Float[Tensor, "v"]:
    """Append known tokens in one pass; return the logits after the last one. Batch of one."""
    ids = torch.tensor([token_ids], device=model.device)
    return model.logits(model.extend(ids, cache)[0, -1])


def decode_restricted(
    model: MolmoAct2, cache: KeyValueCache, logits: Float[Tensor, "v"], *, first_id: int, num_ids: int, count: int
) -> tuple[list[int], Float[Tensor, "v"]]:
    """Decode exactly `count` tokens, the best of ids [first_id, first_id + num_ids) each.

    Returns the ids and the logits after the last one.
    """
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(first_id + int(logits[first_id : first_id + num_ids].argmax()))
        logits = feed(model, cache, chosen[-1:])
    return chosen, logits


def decode_until(
    model: MolmoAct2, cache: KeyValueCache, logits: Float[Tensor, "v"], *, stop_id: int, max_tokens: int, what: str
) -> tuple[list[int], Float[Tensor, "v"]]:
    """Decode freely up to and including `stop_id`; also return the logits after it.

    Raises:
        DecodingError: `stop_id` does not come within `max_tokens` tokens; `what` names it for people.
    """
    chosen: list[int] = []
    while len(chosen) < max_tokens:
        chosen.append(int(logits.argmax()))
        if chosen[-1] == stop_id:
            return chosen, feed(model, cache, chosen[-1:])
        logits = feed(model, cache, chosen[-1:])
    raise DecodingError(
        f"The checkpoint decoded {max_tokens} tokens without ending its {what} (token id {stop_id}); "
        f"the last ones were {chosen[-5:]}. It was probably not trained for this mode."
    )
