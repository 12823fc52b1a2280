"""The slow ways of computing what the network computes fast.

The tests hold the fast ways against them; `benchmarks/` measures what the fast ways save.
"""

import torch
from torch import Tensor

from molmoact2.model import flow
from molmoact2.model.attention import LayerKeyValues
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2


def attend_one_by_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of every head and query by itself; mask [b, 1, q, s] or [1, 1, q, s]."""
    mixed = torch.zeros_like(query)
    batch, num_heads, num_queries, width = query.shape
    group = num_heads // key.shape[1]
    for row in range(batch):
        for head in range(num_heads):
            for token in range(num_queries):
                seen = mask.expand(batch, 1, num_queries, -1)[row, 0, token]
                scores = key[row, head // group, seen] @ query[row, head, token] / width**0.5
                mixed[row, head, token] = scores.softmax(dim=0) @ value[row, head // group, seen]
    return mixed


def sample_actions_projecting_anew(
    model: MolmoAct2, inputs: ModelInputs, layers: list[LayerKeyValues], noise: Tensor, *, num_steps: int
) -> Tensor:
    """Euler's method that computes at every step what the prompt and the time decide; no dimension is padding."""
    assert model.action_expert is not None
    x_t = noise.float()
    for step in range(num_steps):
        context = model.expert_context(layers, inputs.token_ids, inputs.valid)
        modulation = model.modulation(torch.full((len(noise), 1), step / num_steps))
        x_t = x_t + model.action_expert.velocity(x_t[:, None], modulation, context)[:, 0].float() / num_steps
    return x_t


def sample_actions(
    model: MolmoAct2, inputs: ModelInputs, layers: list[LayerKeyValues], noise: Tensor, *, num_steps: int
) -> Tensor:
    """The same, as a policy does it."""
    context = model.expert_context(layers, inputs.token_ids, inputs.valid)
    modulation = model.modulation(flow.time_grid(num_steps))
    return model.sample_actions(noise, context, modulation, action_dim=noise.shape[-1])


def decode_reading_anew(
    model: MolmoAct2, inputs: ModelInputs, features: Tensor, *, first_id: int, num_ids: int, count: int
) -> list[int]:
    """Restricted greedy decoding that reads the whole prompt again for every token. Batch of one."""
    chosen: list[int] = []
    for _ in range(count):
        hidden = model.read(with_more(inputs, chosen), features).hidden
        logits = model.logits(hidden[0, -1])
        chosen.append(first_id + int(logits[first_id : first_id + num_ids].argmax()))
    return chosen


def with_more(inputs: ModelInputs, token_ids: list[int]) -> ModelInputs:
    """A batch of one with more text after it."""
    more = torch.tensor([token_ids], dtype=torch.long)
    return ModelInputs(
        token_ids=torch.cat((inputs.token_ids, more), dim=1),
        image_mask=torch.cat((inputs.image_mask, torch.zeros_like(more, dtype=torch.bool)), dim=1),
        valid=torch.cat((inputs.valid, torch.ones_like(more, dtype=torch.bool)), dim=1),
        crops=inputs.crops,
        pooling=inputs.pooling,
    )
