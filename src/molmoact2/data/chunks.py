"""Action chunks: the next `horizon` actions after each frame, and which of them are padding.

episode          a0 a1 a2 a3 a4 |  a5 …          (| episode_end = 5)
start 3, h = 4            a3 a4   a4 a4          chunk
                          .  .    X  X           is_pad
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molmoact2.data.errors import require


def action_chunks(
    actions: NDArray[np.floating], start_indices: ArrayLike, episode_ends: ArrayLike, horizon: int
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Cut one chunk per start out of a dataset's actions.

    Args:
        actions: [frames, a], all episodes one after the other.
        start_indices: [n] rows of `actions` at which the chunks begin.
        episode_ends: [n], or one number for all: the row just after the last one of the start's episode.
        horizon: steps per chunk, at least 1.

    Returns:
        chunks: [n, horizon, a] in the dtype of `actions`. Steps beyond the episode's end repeat its last action.
        is_pad: [n, horizon], True for those steps. They are no targets: a loss must leave them out.
    """
    starts = np.asarray(start_indices, np.int64)
    ends = np.broadcast_to(np.asarray(episode_ends, np.int64), starts.shape)
    require(horizon > 0, f"horizon must be at least 1, got {horizon}.")
    wrong = (starts < 0) | (starts >= ends) | (ends > len(actions))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Chunk {first} starts at row {starts[first]} of an episode that ends before row {ends[first]}, but there "
            f"are {len(actions)} actions. Need 0 <= start < episode end <= number of actions."
        )
    steps = starts[:, None] + np.arange(horizon)
    is_pad = steps >= ends[:, None]
    return actions[np.minimum(steps, ends[:, None] - 1)], is_pad
