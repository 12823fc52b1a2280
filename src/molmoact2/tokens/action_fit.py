"""Fitting OpenFAST: which runs of levels deserve a token of their own.

The alphabet is every level that a chunk within [-1, 1] can have, whether or not it occurs in the data:

    |coefficient| <= sqrt(horizon)    so    levels -m ... m    with m = round(scale * sqrt(longest horizon))

and a whole chunk is one word, so that tokens may run over anything. Facts: training.md D, where the alphabet of the
reference loses levels and its words are cut by a rule for English.
"""

import json
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer, decoders, models, trainers

from molmoact2.tokens.action import ActionTokenizer, levels_of, texts_of
from molmoact2.tokens.reading import require


def fit_action_tokenizer(
    chunks: Iterable[Float[np.ndarray, "b h a"]],
    *,
    vocab_size: int,
    scale: float = 10.0,
    longest_horizon: int,
) -> ActionTokenizer:
    """Fit a tokenizer to batches of normalised chunks; batches may differ in horizon and width.

    Args:
        chunks: values in [-1, 1], at most `longest_horizon` steps.
        vocab_size: tokens of the result, the levels included.
        scale: levels per unit of a coefficient. A step's error is about 0.29 / scale.
        longest_horizon: of any chunk that will ever be encoded; it decides how many levels there are.

    The result is the same for the same batches. Raises ValueError for chunks that are longer or not normalised, and
    for a vocabulary that leaves no room for the levels.
    """
    largest = largest_level(scale, longest_horizon)
    num_levels = 2 * largest + 1
    require(
        vocab_size >= num_levels,
        f"vocab_size {vocab_size} is less than the {num_levels} levels that scale {scale:g} and a horizon of "
        f"{longest_horizon} need. Take more tokens or a smaller scale.",
    )
    bpe = Tokenizer(models.BPE())
    bpe.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=[chr(character) for character in range(num_levels)],
        show_progress=False,
    )
    bpe.train_from_iterator((texts_of(levels_within(batch, scale, largest) + largest) for batch in chunks), trainer)
    settings = {"scale": scale, "vocab_size": vocab_size, "min_token": -largest}
    unused = {"action_dim": None, "time_horizon": None, "processor_class": "UniversalActionProcessor"}
    return ActionTokenizer.from_files(
        {
            "tokenizer.json": bpe.to_str().encode(),
            "processor_config.json": json.dumps(settings | unused, indent=2).encode(),
        }
    )


def largest_level(scale: float, horizon: int) -> int:
    """The largest level of a chunk within [-1, 1]: that of a constant 1."""
    return int(np.rint(scale * np.sqrt(horizon)))


def levels_within(chunks: Float[np.ndarray, "b h a"], scale: float, largest: int) -> np.ndarray:
    """The levels of chunks; ValueError if any is beyond ±`largest`."""
    levels = levels_of(chunks, scale)
    require(
        np.abs(levels).max(initial=0) <= largest,
        f"A chunk of {chunks.shape[1]} steps has the level {np.abs(levels).max(initial=0)}, beyond {largest}. "
        "Are the actions normalised to [-1, 1], and no longer than the longest horizon?",
    )
    return levels
