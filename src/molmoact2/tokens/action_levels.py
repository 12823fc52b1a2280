"""Levels: the quantised cosine coefficients of action chunks, and the order in which they are written.

    chunk [h, a]  -- DCT along time, × scale, round -->  levels [h, a]  -- layout -->  levels [h · a]

Layout "frequency" writes all dimensions of the lowest frequency first, as the released tokenizer does; "dimension"
writes all frequencies of the first dimension first. Facts: training.md D.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, Real

LAYOUTS = {"frequency": (0, 1, 2), "dimension": (0, 2, 1)}
"""Layout -> order of the axes (chunk, frequency, dimension) in which levels are written; each is its own inverse."""


@lru_cache
def cosine_basis(length: int) -> Float[np.ndarray, "length length"]:
    """The orthonormal cosine transform (DCT-II): row k holds the k-th frequency at every step."""
    k, t = np.arange(length)[:, None], np.arange(length)
    basis = np.sqrt(2.0 / length) * np.cos(np.pi * k * (2 * t + 1) / (2 * length))
    basis[0] /= np.sqrt(2.0)
    basis.flags.writeable = False
    return basis


def largest_level(scale: float, horizon: int) -> int:
    """The largest level of a chunk within [-1, 1]: that of a constant 1."""
    return int(np.rint(scale * np.sqrt(horizon)))


def levels_of(chunks: Float[np.ndarray, "b h a"], scale: float, dead_zone: float = 0.5) -> Int[np.ndarray, "b h a"]:
    """The level of every coefficient, frequency by frequency.

    A coefficient becomes level n from n - 1 + `dead_zone` on, so 0.5 is plain rounding (half to even), and more of them
    become 0 when it is larger.
    """
    coefficients = scale * (cosine_basis(chunks.shape[1]) @ chunks.astype(np.float64))
    towards_zero = np.clip(coefficients, 0.5 - dead_zone, dead_zone - 0.5)
    return np.rint(coefficients - towards_zero).astype(np.int64)


def chunks_of(
    levels: Real[np.ndarray, "b h a"], scale: float, out: Float[np.ndarray, "b h a"] | None = None
) -> Float[np.ndarray, "b h a"]:
    """The chunks (float64) that levels stand for, in `out` if that is given."""
    return np.matmul(cosine_basis(levels.shape[1]).T, levels / scale, out=out)


def rows_of(levels: Int[np.ndarray, "b h a"], layout: str) -> Int[np.ndarray, "b n"]:
    """The levels of each chunk in the order in which they are written."""
    return levels.transpose(LAYOUTS[layout]).reshape(len(levels), -1)


def levels_in(rows: Real[np.ndarray, "b n"], layout: str, horizon: int, action_dim: int) -> Real[np.ndarray, "b h a"]:
    """The inverse of `rows_of`."""
    shape = np.array((len(rows), horizon, action_dim))[list(LAYOUTS[layout])]
    return rows.reshape(shape).transpose(LAYOUTS[layout])
