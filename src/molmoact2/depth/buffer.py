"""The buffer: what a policy that reuses codes remembers of an episode's depth, frame by frame.

    frame            0     1     2     3
    fresh code      17    17    42    42      of one cell
    cell changed   yes    no    no   yes      compared with the frame before
    buffer          17    17    17    42      what is learned: the code of the last change

A cell that does not change keeps its code, however its depth was read since. It is decided by the change map of
inference itself, so what is learned is what will be seen. Facts: training.md G, paper section 5.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from molmoact2.depth.change import cells_of, differing


def buffer_codes(
    codes: Int64[np.ndarray, "frames cells"], updated: Bool[np.ndarray, "frames cells"]
) -> Int64[np.ndarray, "frames cells"]:
    """The codes at the last update of each cell; every cell of the first frame must be marked as updated."""
    assert updated[:1].all(), "an episode begins without a memory"
    last = np.maximum.accumulate(np.where(updated, np.arange(len(codes))[:, None], 0), axis=0)
    return np.take_along_axis(codes, last, axis=0)


def updated_cells(images: Iterable[UInt8[np.ndarray, "h w 3"]], *, side: int) -> Bool[np.ndarray, "frames cells"]:
    """Which of the `side` × `side` cells of each frame of an episode changed since the frame before; the first: all.

    Each frame is resized and cut once. Frame by frame this is `changed_cells`, to the bit.
    """
    updated, before = [], None
    for image in images:
        cells = cells_of(image, side)
        updated.append(np.ones(side * side, bool) if before is None else differing(before, cells))
        before = cells
    return np.array(updated, bool).reshape(-1, side * side)
