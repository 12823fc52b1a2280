"""Byte pair encoding learnt from a long list of numbers in two bytes each.

The trainer of the `tokenizers` library holds every distinct text as a linked list, which for whole action chunks is
some 80 bytes a symbol. Here the symbols stay in flat arrays that shrink with every merge, and the pairs are counted in
one matrix. The merges are those of plain BPE: the most frequent pair first, of equal ones the one with smaller ids.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt16

BLOCK = 1 << 18
"""Symbols that are looked through at once, so that they stay in the cache."""
RAREST = 2
"""How often a pair has to occur to be merged."""


class PairCounts:
    """How often each symbol stands before each other one in texts, as merges go on."""

    def __init__(self, vocab_size: int) -> None:
        """For symbols below `vocab_size`, which is what ends a text."""
        self.end = vocab_size
        self.blocks: list[UInt16[np.ndarray, " n"]] = []
        """Texts one after the other, each followed by `end`."""
        self._counts = np.zeros((vocab_size, vocab_size), np.int64)

    def add(self, block: UInt16[np.ndarray, " n"]) -> None:
        """Count the pairs of whole texts."""
        self.blocks.append(block)
        self._count(block, np.arange(len(block) - 1), 1)

    def most_frequent(self) -> tuple[int, int, int]:
        """The pair that occurs most often, and how often."""
        best = int(self._counts.argmax())
        return best // self.end, best % self.end, int(self._counts.flat[best])

    def merge(self, left: int, right: int, new: int) -> None:
        """Put the symbol `new` for `left` and `right` wherever they meet, from the front."""
        self.blocks = [self._merge(block, left, right, new) for block in self.blocks]

    def _merge(self, block: UInt16[np.ndarray, " n"], left: int, right: int, new: int) -> UInt16[np.ndarray, " n"]:
        found = np.flatnonzero((block[:-1] == left) & (block[1:] == right))
        if left == right:
            found = found[_every_other(found)]
        self._count(block, _around(found, 2, len(block)), -1)
        keep = np.ones(len(block), bool)
        keep[found + 1] = False
        block[found] = new
        block = block[keep]
        self._count(block, _around(found - np.arange(len(found)), 1, len(block)), 1)
        return block

    def _count(self, block: UInt16[np.ndarray, " n"], places: Int[np.ndarray, " k"], by: int) -> None:
        """Add to the counts of the pairs that begin at these places."""
        first, second = block[places].astype(np.int64), block[places + 1].astype(np.int64)
        within = (first != self.end) & (second != self.end)
        np.add.at(self._counts, (first[within], second[within]), by)


def learn_merges(
    texts: Iterable[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " b"]]],
    *,
    spellings: Sequence[str],
    vocab_size: int,
    on_token: Callable[[int], object] = int,
) -> tuple[list[str], list[tuple[int, int]]]:
    """What each token stands for, and the pairs to merge, in order.

    Args:
        texts: symbols of several texts one after the other, and how many each text has.
        spellings: what each symbol that there is from the beginning stands for, all distinct.
        vocab_size: tokens in the end, at most 65,535; fewer where no pair is left that occurs twice.
        on_token: told how many tokens there are, from time to time.

    Two pairs with one spelling become the same token, as the tokenizer that reads the merges will have it.
    """
    pairs = PairCounts(vocab_size)
    for block in _blocks(texts, vocab_size):
        pairs.add(block)
    tokens = {spelling: token for token, spelling in enumerate(spellings)}
    known, merges = list(spellings), dict[tuple[int, int], None]()
    while len(known) < vocab_size:
        left, right, count = pairs.most_frequent()
        if count < RAREST:
            break
        spelling = known[left] + known[right]
        new = tokens.setdefault(spelling, len(known))
        known[new:] = known[new:] or [spelling]
        merges[left, right] = None
        pairs.merge(left, right, new)
        on_token(len(known))
    return known, list(merges)


def _blocks(
    texts: Iterable[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " b"]]], end: int
) -> Iterator[UInt16[np.ndarray, " n"]]:
    """The texts, each followed by `end`, in blocks of about `BLOCK` symbols."""
    waiting = [np.array([end], np.uint16)]
    for symbols, lengths in texts:
        waiting.append(np.insert(symbols, lengths.cumsum(), end).astype(np.uint16))
        if sum(map(len, waiting)) >= BLOCK:
            yield np.concatenate(waiting)
            waiting = []
    yield np.concatenate([*waiting, np.array([end], np.uint16)])


def _every_other(places: Int[np.ndarray, " k"]) -> np.ndarray:
    """Of places that follow one another directly: the first, third, … of each such run."""
    begins = np.diff(places, prepend=-2) > 1
    order = np.arange(len(places))
    return (order - np.maximum.accumulate(order * begins)) % 2 == 0


def _around(places: Int[np.ndarray, " k"], length: int, size: int) -> Int[np.ndarray, " m"]:
    """Where the pairs begin that have a symbol of the stretches [place, place + length), each once."""
    starts = (places[:, None] + np.arange(-1, length)).ravel()
    return np.unique(starts[(starts >= 0) & (starts < size - 1)])
