"""How large a message may be, and what is said about one that is refused."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Code: TypeAlias = Literal[
    "malformed",  # not of this protocol, or beyond its limits
    "unfit",  # well-formed, but not something this policy can be asked
    "unauthorized",  # no token, or a wrong one
    "busy",  # too much is waiting: come back later
    "superseded",  # a newer observation of the same session took its place
    "late",  # its deadline passed before it was answered
    "held",  # an operator holds the robot: there are no actions until it is resumed
    "internal",  # the server's fault; the message holds an id to look up in its log
]
"""Why something is refused."""


class WireError(ValueError):
    """A message that is refused whole, before anything is changed."""

    def __init__(self, message: str, *, code: Code = "malformed", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.retry_after_s = retry_after_s


def require(is_allowed: object, complaint: str) -> None:
    """Raise a WireError with this complaint unless what came is allowed."""
    if not is_allowed:
        raise WireError(complaint)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest message that is read. Checked before memory is taken."""

    message_bytes: int = 32 * 2**20
    """Of one frame or body."""
    image_pixels: int = 4096 * 4096 // 4
    """Height times width of one image, compressed or not."""
    image_side: int = 8192
    num_images: int = 8
    num_array_dims: int = 4
    num_values: int = 4096
    """Numbers in an array that is not an image, such as a state."""
    num_text: int = 2000
    """Characters of an instruction or another text."""
    num_items: int = 256
    """Entries of one map or list."""
    num_entries: int = 2**16
    """Entries of all maps and lists of one message together."""
    depth: int = 8
    """Maps and lists within one another."""
    num_flow_steps: int = 64
