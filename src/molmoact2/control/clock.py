"""Two kinds of time: the one on the wall, and one that passes only while somebody sleeps."""

import time


class WallClock:
    """Seconds since this clock was made; implements `Clock`."""

    def __init__(self, *, speed: float = 1.0) -> None:
        """`speed` below 1 is slow motion, for a simulation on a computer that is too busy for it."""
        self.speed = speed
        self.started_s = time.monotonic()

    def now(self) -> float:
        """Seconds since it was made."""
        return self.speed * (time.monotonic() - self.started_s)

    def sleep_until(self, time_s: float, /) -> None:
        """Return at `time_s`; at once where it has passed."""
        time.sleep(max(0.0, time_s - self.now()) / self.speed)


class VirtualClock:
    """Time that nobody waits for: sleeping until a moment is what makes it come; implements `Clock`.

    Everything that happens between two sleeps takes no time, so a run is exact and as fast as the processor allows.
    """

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        """Where the last sleep ended."""
        return self.time_s

    def sleep_until(self, time_s: float, /) -> None:
        """Let time pass until `time_s`; it never runs backwards."""
        self.time_s = max(self.time_s, time_s)
