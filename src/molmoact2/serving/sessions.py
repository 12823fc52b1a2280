"""What the server remembers of each robot: depth maps, episode, seeds. Nothing of one reaches another."""

import random
import secrets
import time
from collections.abc import Callable

from molmoact2.inference.session import Session
from molmoact2.wire.limits import WireError

SEED_BITS = 32
"""Of the seeds that we draw: any program that reads an answer can write such a number."""


class ServedSession:
    """One robot's episodes."""

    def __init__(self, *, client: str, dialect: str, remembers: bool, now: float) -> None:
        """`remembers` is False for clients that never name their session: each question stands for itself."""
        self.id = secrets.token_urlsafe(16)
        """Random; whoever knows it may go on with the session."""
        self.client = client
        self.dialect = dialect
        self.remembers = remembers
        self.episode = -1
        """Counts resets, from 0."""
        self.connections = 0
        """Open ones; a connected session does not expire."""
        self.last_used = now
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begin another episode; what is computed for the last one goes on with a memory of its own."""
        self.episode += 1
        self._memory = Session()
        self._seeds = random.Random(seed)

    @property
    def memory(self) -> Session:
        """What the policy remembers of the episode; fresh every time where nothing is remembered."""
        return self._memory if self.remembers else Session()

    def draw_seed(self) -> int:
        """A seed for the next answer; the same sequence after a reset with the same seed."""
        return self._seeds.getrandbits(SEED_BITS)


class Sessions:
    """All sessions of a server, bounded in number and in age."""

    def __init__(
        self, *, cap: int, ttl_s: float, ended: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ended` is told the id of every session that is over."""
        self.cap, self.ttl_s, self.ended, self.clock = cap, ttl_s, ended, clock
        self._sessions: dict[str, ServedSession] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._sessions)

    def __iter__(self):
        """Ids, oldest first."""
        return iter(tuple(self._sessions))

    def open(self, *, client: str, dialect: str, remembers: bool = True) -> ServedSession:
        """A new session; WireError "busy" where there are too many."""
        self.expire()
        if len(self._sessions) >= self.cap:
            raise WireError(
                f"There are {self.cap} sessions already. Close some, or come back later.",
                code="busy",
                retry_after_s=min(self.ttl_s, 60.0),
            )
        session = ServedSession(client=client, dialect=dialect, remembers=remembers, now=self.clock())
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str) -> ServedSession | None:
        """The session of this id; None where there is none, or none any more."""
        self.expire()
        session = self._sessions.get(session_id)
        if session is not None:
            session.last_used = self.clock()
        return session

    def close(self, session_id: str) -> None:
        """End a session."""
        if self._sessions.pop(session_id, None) is not None:
            self.ended(session_id)

    def expire(self) -> None:
        """End those that nobody used for long."""
        oldest = self.clock() - self.ttl_s
        for session in [s for s in self._sessions.values() if not s.connections and s.last_used < oldest]:
            self.close(session.id)
