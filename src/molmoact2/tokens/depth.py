"""Depth codes in the text a policy generates: `<depth_start>` codes `<depth_end>`. Facts: architecture.md 7."""

import numpy as np
from jaxtyping import Int

from molmoact2.tokens.vocabulary import TokenFamily


def read_depth_codes(
    token_ids: Int[np.ndarray, " s"], family: TokenFamily, *, num_codes: int
) -> Int[np.ndarray, " num_codes"]:
    """The depth codes of generated text; ValueError unless there is one complete map of `num_codes` codes."""
    starts, ends = (np.flatnonzero(token_ids == marker) for marker in (family.start, family.end))
    if not starts.size or not ends.size:
        raise ValueError("The generated text has no complete <depth_start> … <depth_end>.")
    codes = family.numbers(token_ids[starts[0] + 1 : ends[0]])
    if codes.size != num_codes:
        raise ValueError(f"The generated depth map has {codes.size} codes, expected {num_codes}.")
    return codes
