"""The vla-evaluation-harness's websocket protocol, version 1, at / and /harness: one action for each observation.

The rest of a chunk waits on the server, per connection; a new chunk is planned when it is used up, and a new episode
begins with none.
"""

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from molmoact2.serving.desk import Desk, Line, foreign_ask, websocket_route
from molmoact2.serving.dialects.naming import heard
from molmoact2.serving.dialects.rows import Rows
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.sessions import ServedSession
from molmoact2.wire.dialects.harness import HARNESS_PROTOCOL, Frame, FrameType, pack, unpack
from molmoact2.wire.limits import WireError

DIALECT = "vla-eval"
OBSERVATION_PARAMS: Mapping[str, Mapping[str, Any]] = {"libero": {"send_wrist_image": True, "send_state": True}}
"""Embodiment -> what its benchmark is asked to send, beyond what it sends by itself."""
NOT_OBSERVED = ("controller_states", "step", "timestamp")
"""Fields of benchmarks that no policy of ours needs."""


def harness_routes(desk: Desk) -> APIRouter:
    """/harness."""
    router = APIRouter()

    websocket_route(router, "/harness", desk, serve_harness)
    return router


async def serve_harness(line: Line, desk: Desk, first: bytes | None = None) -> None:
    """Answer until the client is gone; `first` is its first message where that was heard already."""
    try:
        session = desk.engine.sessions.open(client=f"vla-eval at {line.client}", dialect=DIALECT)
    except WireError as error:
        await line.say(pack(complaint(error, 0)))
        raise await line.leave(1013, "no session") from error
    session.connections += 1
    try:
        conversation = HarnessConversation(desk, session)
        data = await line.hear(desk.guard.settings.first_byte_s) if first is None else first
        while True:
            reply = await conversation.take(data)
            if reply is not None:
                await line.say(pack(reply))
            data = await line.hear()
    finally:
        session.connections -= 1
        desk.engine.sessions.close(session.id)


class HarnessConversation:
    """One connection."""

    def __init__(self, desk: Desk, session: ServedSession) -> None:
        """Nothing has been planned yet."""
        self.desk, self.session, self.rows = desk, session, Rows()
        self.ignored: tuple[str, ...] = ()
        """Fields of the last observation that mean nothing here."""

    async def take(self, data: bytes) -> Frame | None:
        """The answer to one frame, where it has one; what is wrong changes nothing."""
        seq, arrived_s = 0, time.perf_counter()
        try:
            frame = await self.desk.read(unpack, data)
            seq = frame.seq
            payload = await self.answer(frame, arrived_s)
        except WireError as error:
            self.desk.engine.heard_nonsense(DIALECT, error)
            return complaint(error, seq)
        return None if payload is None else Frame(type=REPLIES[frame.type], payload=payload, seq=seq)

    async def answer(self, frame: Frame, arrived_s: float) -> dict[str, Any] | None:
        """What to say to a frame."""
        match frame.type:
            case "hello":
                return self.hello(frame.payload)
            case "observation":
                action = await self.next_action(frame.payload, arrived_s)
                return {"actions": action, **({"ignored": list(self.ignored)} if self.ignored else {})}
            case "episode_start" | "episode_end":
                self.rows.clear()
                self.desk.engine.reset(self.session)
            case "action":
                raise WireError("Only servers say what to do.")
        return None

    def hello(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Who we are."""
        version = payload.get("protocol_version")
        if version != HARNESS_PROTOCOL:
            raise WireError(f"This server speaks protocol version {HARNESS_PROTOCOL}, not {str(version)[:20]}.")
        tags = self.desk.engine.embodiments
        params = OBSERVATION_PARAMS.get(tags[0], {}) if len(tags) == 1 else {}
        return {
            "harness_version": "molmoact2",
            "protocol_version": HARNESS_PROTOCOL,
            "model_server": self.desk.model,
            "capabilities": {},
            **({"observation_params": dict(params)} if params else {}),
        }

    async def next_action(self, payload: Mapping[str, Any], arrived_s: float) -> Any:
        """One row; the observation is looked at only when a new chunk is due."""
        is_held = self.desk.engine.operator.wish_of(self.session.id).is_held
        return await self.rows.next(lambda: self.plan(payload, arrived_s), is_held=is_held)

    async def plan(self, payload: Mapping[str, Any], arrived_s: float) -> Exchange:
        """A new chunk."""
        images = payload.get("images")
        if not isinstance(images, dict):
            raise WireError("An observation must have images by the name of their camera.", code="unfit")
        stats = self.desk.stats(payload.get("embodiment"))
        fields = {**{name: value for name, value in payload.items() if name != "images"}, **images}
        said = heard(fields, stats, self.desk.limits, known=("embodiment", *NOT_OBSERVED))
        self.ignored = said.unknown
        ask = foreign_ask(self.desk.next_number(), said.observation, embodiment=stats.tag)
        return await self.desk.engine.ask(self.session, ask, arrived_s=arrived_s)


REPLIES: Mapping[FrameType, FrameType] = {"hello": "hello", "observation": "action"}


def complaint(error: WireError, seq: int) -> Frame:
    """An error in the harness's words."""
    return Frame(type="error", payload={"error": f"{error.code}: {error}"}, seq=seq)
