"""Exchanges that nobody had, for tests of those who watch."""

from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight import FlightLog, PolicyIdentity
from molmoact2.types import ActionChunk, Committed, DepthReasoning, Observation
from molmoact2.wire.messages import Telemetry

NOBODY = PolicyIdentity(
    name="nobody", fingerprint="sha256:0", dtype="float32", device="cpu", num_threads=1, torch="2", molmoact2="0"
)


def made_up(number: int, *, height: int = 6, width: int = 8, **changes: Any) -> Exchange:
    """The exchange of this number, always the same one."""
    random = np.random.default_rng(number)
    images = {name: random.integers(0, 256, (height, width, 3), np.uint8) for name in ("front", "wrist")}
    observation = Observation(images=images, state=random.normal(size=6).astype(np.float32), instruction="wave")
    depth = DepthReasoning(
        codes=random.integers(0, 32, 16), changed=random.random(16) < 0.5, passes=2, gates=np.ones(2, np.float32)
    )
    fields: dict[str, Any] = {
        "number": number,
        "session": "one",
        "client": "test",
        "dialect": "own",
        "request": str(number),
        "question": Question(
            observation=observation,
            embodiment="so101_tabletop",
            options={"mode": "continuous", "think": True},
            seed=number,
            committed=Committed(actions=random.normal(size=(3, 6)).astype(np.float32), delay=2),
        ),
        "chunk": ActionChunk(actions=random.normal(size=(4, 6)).astype(np.float32), depth=depth, timing={"flow": 0.01}),
        "refusal": None,
        "batch": number,
        "episode": 0,
        "arrived_at": 1000.0 + number,
        "queue_s": 0.001,
        "inference_s": 0.05,
        "total_s": 0.06,
        "observed_at": 10.0 + 0.5 * number,
    }
    return Exchange(**{**fields, **changes})


def telemetry(at: float = 1.0, *, ticks: int = 3, mode: str = "full", notes: tuple[str, ...] = ()) -> Telemetry:
    """What a robot did in the tenths of a second before `at`."""
    values = np.linspace(0, 1, ticks * 6, dtype=np.float32).reshape(ticks, 6)
    times = at - 0.1 * np.arange(ticks)[::-1]
    return Telemetry(time=at, mode=mode, executed=values, measured=values + 0.5, times=times, notes=notes)


def is_same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the bit."""
    match a:
        case np.ndarray():
            return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        case dict():
            return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
        case Exchange() | Question() | Observation() | ActionChunk() | DepthReasoning() | Committed() | Telemetry():
            return type(a) is type(b) and is_same(vars(a), vars(b))
    return a == b


def recorded_numbers(folder: Path) -> list[int]:
    """Numbers of the exchanges of the only flight."""
    (flight,) = FlightLog(folder).flights
    return [exchange.number for exchange in flight.exchanges()]
