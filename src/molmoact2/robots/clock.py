"""Time of a real robot."""

import time


class SteadyClock:
    """The computer's monotonic clock: seconds that never jump back. Satisfies `control.robot.Clock`."""

    def now(self) -> float:
        """Seconds since some moment in the past."""
        return time.monotonic()

    def sleep_until(self, time_s: float, /) -> None:
        """Return at `time_s`; at once where it has passed."""
        time.sleep(max(0.0, time_s - time.monotonic()))
