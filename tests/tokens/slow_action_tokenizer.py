"""The plainest action tokenizer: the released algorithm, a chunk and a character at a time. Facts: training.md D."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from tokenizers import ByteLevelBPETokenizer, Tokenizer, trainers

from molmoact2.tokens.action_levels import cosine_basis


def encode(bpe: Tokenizer, chunk: np.ndarray, *, scale: float, min_token: int) -> list[int]:
    """Token ids of one chunk [h, a]."""
    levels = np.around(cosine_basis(len(chunk)) @ chunk.astype(np.float64) * scale).flatten()
    return bpe.encode("".join(map(chr, np.maximum(levels - min_token, 0).astype(int).tolist()))).ids


def decode(
    bpe: Tokenizer, token_ids: Sequence[int], *, scale: float, min_token: int, horizon: int, action_dim: int
) -> np.ndarray:
    """The chunk [h, a] of token ids; zeros if they are none."""
    text = bpe.decode(list(token_ids), skip_special_tokens=False)
    levels = np.array(list(map(ord, text)), float) + min_token
    if levels.size != horizon * action_dim:
        levels = np.zeros(horizon * action_dim)
    return cosine_basis(horizon).T @ (levels.reshape(horizon, action_dim) / scale)


def fit(chunks: Iterable[np.ndarray], *, vocab_size: int, scale: float = 10.0) -> tuple[Tokenizer, int]:
    """The released fitting procedure on chunks [h, a]: the BPE, and the smallest level."""
    levels = [np.around(cosine_basis(len(chunk)) @ chunk.astype(np.float64) * scale).astype(int) for chunk in chunks]
    smallest, largest = min(level.min() for level in levels), max(level.max() for level in levels)
    bpe = ByteLevelBPETokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(character) for character in range(largest - smallest + 1)],
        max_token_length=10_000,
    )
    texts = ("".join(chr(level - smallest) for level in chunk.flatten()) for chunk in levels)
    bpe._tokenizer.train_from_iterator(texts, trainer=trainer)
    return bpe._tokenizer, int(smallest)


def fold_zeros(row: Sequence[int], zero: int, doubled: Sequence[int]) -> list[int]:
    """A row in which runs of zeros are powers of two."""
    names, folded, run = [zero, *doubled], [], 0
    for symbol in [*row, None]:
        if symbol == zero:
            run += 1
            continue
        for power in reversed(range(len(names))):
            folded += [names[power]] * (run >> power)
            run -= (run >> power) << power
        folded.append(symbol)
    return folded[:-1]


def learn_merges(
    texts: Sequence[Sequence[int]], spellings: Sequence[str], vocab_size: int
) -> tuple[list[str], list[tuple[int, int]]]:
    """Byte pair encoding by its definition."""
    left = [list(text) for text in texts]
    known, merges = list(spellings), {}
    while len(known) < vocab_size:
        counts = Counter(pair for text in left for pair in pairwise(text))
        pair = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if pair is None or counts[pair] < 2:
            break
        spelling = known[pair[0]] + known[pair[1]]
        known += [spelling] * (spelling not in known)
        merges[pair] = known.index(spelling)
        for text in left:
            place = 0
            while place < len(text) - 1:
                if (text[place], text[place + 1]) == pair:
                    text[place : place + 2] = [merges[pair]]
                place += 1
    return known, list(merges)
