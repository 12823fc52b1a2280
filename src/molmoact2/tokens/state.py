"""The robot's state as tokens: one of `num_bins` levels per dimension. Facts: training.md B.4."""

import numpy as np
from jaxtyping import Float, Int


def state_bins(normalized_state: Float[np.ndarray, " d"], *, num_bins: int) -> Int[np.ndarray, " d"]:
    """The level of each normalised value: -1 is level 0, +1 the last; values beyond are clipped.

    NaN becomes 0, infinities their sign, as in the reference; a processor refuses a state that has them before this.
    """
    finite = np.nan_to_num(normalized_state, nan=0.0, posinf=1.0, neginf=-1.0)
    return np.rint((np.clip(finite, -1.0, 1.0) + 1.0) / 2.0 * (num_bins - 1)).astype(np.int64)
