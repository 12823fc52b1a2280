"""Reading in pieces with a cache is reading at once: the same sums in another order, equal to 1e-5 of values near 1."""

import pytest
import torch

from molmoact2.model.attention import KeyValueCache
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import random_model
from slow_twins import with_more
from small_networks import GRID, prompts, single, small_config

SPOKEN = [33, 34, 50, 51, 40, 60, 61]


def cache_for(model: MolmoAct2, batch: int, capacity: int) -> KeyValueCache:
    text = model.config.text_config
    shape = (text.num_hidden_layers, batch, text.num_key_value_heads, capacity, text.head_dim)
    return KeyValueCache(shape, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 3]], ids=str)
@pytest.mark.parametrize(
    "text", [{}, {"norm_after": True}, {"qk_norm_type": "olmo", "num_key_value_heads": 1}], ids=str
)
@torch.inference_mode()
def test_pieces_are_the_whole(pieces: list[int], text: dict):
    model = random_model(small_config(text_config=text), seed=0)
    inputs = single(prompts(model.config), 0)
    features, length = model.image_features(inputs, GRID), inputs.token_ids.shape[1]
    cache = cache_for(model, 1, length + len(SPOKEN) + 4)
    prompt = model.read(inputs, features, cache).hidden
    spoken = [model.extend(piece, cache) for piece in torch.tensor([SPOKEN]).split(pieces, dim=1)]
    whole = model.read(with_more(inputs, SPOKEN), features)
    torch.testing.assert_close(torch.cat((prompt, *spoken), dim=1), whole.hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cache.layers(), whole.layers, rtol=1e-5, atol=1e-5)
    assert cache.length == length + len(SPOKEN)
    assert cache.valid.sum() == cache.length


@torch.inference_mode()
def test_prompts_of_other_lengths_go_on_as_if_alone():
    """The shorter prompt's padding stays between it and what follows, unseen and without a position."""
    model = random_model(small_config(), seed=0)
    inputs, spoken = prompts(model.config), torch.tensor([SPOKEN, SPOKEN[::-1]])
    features = model.image_features(inputs, GRID)
    cache = cache_for(model, 2, inputs.token_ids.shape[1] + len(SPOKEN))
    model.read(inputs, features, cache)
    together = torch.cat([model.extend(piece, cache) for piece in spoken.split([4, 3], dim=1)], dim=1)
    for row in range(2):
        alone = single(inputs, row)
        length = alone.token_ids.shape[1]
        whole = model.read(with_more(alone, spoken[row].tolist()), model.image_features(alone, GRID))
        torch.testing.assert_close(together[row], whole.hidden[0, length:], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_batch_reads_every_prompt_as_if_alone():
    model = random_model(small_config(), seed=0)
    counts, words = (2, 0, 1, 3), (5, 30, 9, 1)
    inputs = prompts(model.config, num_images=counts, num_words=words)
    together = model.read(inputs, model.image_features(inputs, GRID))
    for row in range(4):
        alone = single(inputs, row, counts)
        length = alone.token_ids.shape[1]
        features = model.image_features(alone, GRID) if counts[row] else torch.zeros(0, 32)
        encoding = model.read(alone, features)
        torch.testing.assert_close(together.hidden[row, :length], encoding.hidden[0], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_with_and_without_a_cache_a_prompt_reads_the_same():
    model = random_model(small_config(), seed=0)
    inputs = prompts(model.config)
    features = model.image_features(inputs, GRID)
    cached = model.read(inputs, features, cache_for(model, 2, 99))
    assert torch.equal(cached.hidden, model.read(inputs, features).hidden)


@torch.inference_mode()
def test_image_tokens_see_later_images_and_words_see_nothing_later():
    model = random_model(small_config(), seed=0)
    inputs = single(prompts(model.config), 0)
    features = model.image_features(inputs, GRID)
    changed = features.clone()
    changed[-1] += 1.0
    difference = (model.read(inputs, features).hidden - model.read(inputs, changed).hidden).abs().amax(dim=-1)[0]
    image = inputs.image_mask[0]
    assert not difference[0], "the first token stands before the images and is none of them"
    assert (difference[image] > 1e-4).all()
    assert (difference[1:] > 0).all(), "words stand after the images"
