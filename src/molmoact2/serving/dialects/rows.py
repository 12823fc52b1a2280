"""Chunks for clients that want one action at a time: the rest of the last chunk waits here, per session."""

from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from molmoact2.serving.exchange import Exchange
from molmoact2.wire.limits import WireError


class Rows:
    """What of a chunk was not handed out yet."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.num_chunks = 0
        """Chunks that were asked for since the episode began."""
        self._rows: deque[NDArray[np.float32]] = deque()

    def clear(self) -> None:
        """Another episode begins."""
        self.num_chunks = 0
        self._rows.clear()

    async def next(self, plan: Callable[[], Awaitable[Exchange]], *, is_held: bool) -> NDArray[np.float32]:
        """The next row [action_dim]; `plan` is asked for a new chunk when there is none. WireError where that fails.

        What was planned before a robot is held is not done afterwards.
        """
        if is_held:
            self._rows.clear()
        if not self._rows:
            self._rows.extend(actions_of(await plan()))
            self.num_chunks += 1
        return self._rows.popleft()


def actions_of(exchange: Exchange) -> NDArray[np.float32]:
    """The actions [rows, action_dim] of an answer; WireError with the code of a refusal."""
    if exchange.chunk is None:
        code, message = exchange.refusal or ("internal", "no answer")
        raise WireError(message, code=code)
    return exchange.chunk.actions
