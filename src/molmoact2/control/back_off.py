"""How long to wait after something that failed."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class BackOff:
    """When to try again after failures in a row: soon after the first one, less and less often after more."""

    first_s: float = 0.1
    longest_s: float = 2.0
    num_failures: int = 0
    not_before_s: float = 0.0

    def failed(self, time_s: float) -> None:
        """There was another failure at `time_s`."""
        self.not_before_s = time_s + min(self.longest_s, self.first_s * 2**self.num_failures)
        self.num_failures += 1

    def succeeded(self) -> None:
        """It works."""
        self.num_failures, self.not_before_s = 0, 0.0
