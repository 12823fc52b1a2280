"""What can go wrong between a robot and its server, as exceptions."""

from collections.abc import Mapping
from types import MappingProxyType

from molmoact2.wire.limits import Code
from molmoact2.wire.messages import Refusal


class ConnectionLostError(ConnectionError):
    """There is no connection, or it broke before the answer came. The client goes on trying; ask again.

    Nothing that was asked is ever sent a second time by itself.
    """


class RefusedError(RuntimeError):
    """The server answered, and the answer is no."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code: Code = code
        """Why: "busy", "held", "superseded", … as in `molmoact2.wire.limits.Code`."""
        self.retry_after_s = retry_after_s
        """When asking again may help; None where nobody knows."""


class WrongQuestionError(RefusedError, ValueError):
    """What was asked is wrong ("malformed", "unfit"): asking the same again is of no use."""


class LateError(RefusedError, TimeoutError):
    """No answer before the deadline ("late"). One that still comes is dropped."""


KINDS: Mapping[Code, type[RefusedError]] = MappingProxyType(
    {"malformed": WrongQuestionError, "unfit": WrongQuestionError, "late": LateError}
)


def refused(refusal: Refusal) -> RefusedError:
    """The exception of a refusal."""
    kind = KINDS.get(refusal.code, RefusedError)
    return kind(refusal.code, refusal.message, refusal.retry_after_s)
