"""What may never be commanded, and what is commanded instead."""

from molmoact2.control.guard.faults import Fault, Severity
from molmoact2.control.guard.guard import Guard, GuardState, Mode, Verdict

__all__ = ["Fault", "Guard", "GuardState", "Mode", "Severity", "Verdict"]
