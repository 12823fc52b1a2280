"""Runs of zeros: the first merges of every fitted tokenizer, done all at once.

Most levels are 0. Where a BPE begins by doubling the zero (0 0 -> 00, 00 00 -> 0000, …), what is left of a run of n
zeros after those merges is known from n alone: as many of the longest as fit, then one of each smaller power of two
that n is made of. A text is several times shorter then, and the remaining merges are found in less time and memory.

    5 0 0 0 0 0 0 0 2    ->    5 [0000] [00] 0 2
"""

import numpy as np
from jaxtyping import Int

MOST_DOUBLINGS = 6
"""Of a fitted tokenizer: runs of up to 64 zeros are one symbol."""


def fold_zeros(
    rows: Int[np.ndarray, "b n"], zero: int, doubled: Int[np.ndarray, " k"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " b"]]:
    """Symbols of all rows, one after the other, and how many each row has.

    `doubled` holds the symbols for 2, 4, 8, … times the symbol `zero`; without any, the rows are returned as they are.
    """
    names = np.concatenate(([zero], doubled)).astype(np.int32)
    num_rows, width = rows.shape
    is_zero = np.zeros((num_rows, width + 2), bool)
    is_zero[:, 1:-1] = rows == zero
    # Of every run: where it begins and how long it is, counted in rows with a margin on both sides.
    turns = np.flatnonzero(is_zero.ravel()[1:] != is_zero.ravel()[:-1])
    first, length = turns[::2] + 1, turns[1::2] - turns[::2]
    powers = np.arange(len(doubled))
    longest, rest = np.divmod(length, 1 << len(doubled))
    has_power = (rest[:, None] >> powers) & 1
    # Every other symbol stays; the first zero of a run becomes several symbols, the others none.
    counts = np.zeros((num_rows, width + 2), np.int64)
    counts[:, 1:-1] = rows != zero
    counts.ravel()[first] = longest + has_power.sum(axis=1)
    ends = counts.ravel().cumsum()
    symbols = np.repeat(np.pad(rows, ((0, 0), (1, 1))).ravel(), counts.ravel()).astype(np.int32)
    place = ends[first] - counts.ravel()[first]
    symbols[spread(place, longest)] = names[-1]
    run, down = np.nonzero(has_power[:, ::-1])
    rank = has_power[:, ::-1].cumsum(axis=1)[run, down] - 1
    symbols[place[run] + longest[run] + rank] = names[powers[::-1][down]]
    return symbols, counts.sum(axis=1)


def spread(starts: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """The numbers start, start + 1, … of every stretch, one after the other."""
    ends = lengths.cumsum()
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
