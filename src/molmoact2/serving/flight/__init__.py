"""The flight recorder: what passed a server, exactly, and how to read it and ask it again."""

from molmoact2.serving.flight.events import Ended, Event, Failed, Gap, Moved, PolicyIdentity
from molmoact2.serving.flight.identity import identify
from molmoact2.serving.flight.log import Flight, FlightLog
from molmoact2.serving.flight.recorder import FlightRecorder
from molmoact2.serving.flight.segments import FlightLogError

__all__ = [
    "Ended",
    "Event",
    "Failed",
    "Flight",
    "FlightLog",
    "FlightLogError",
    "FlightRecorder",
    "Gap",
    "Moved",
    "PolicyIdentity",
    "identify",
]
