"""openpi's websocket protocol, at / and /openpi: metadata first, then an observation and its actions, in turns."""

import time
from typing import Any

from fastapi import APIRouter

from molmoact2.serving.cards import robot_card
from molmoact2.serving.desk import Desk, Line, foreign_ask, websocket_route
from molmoact2.serving.dialects.naming import heard
from molmoact2.serving.dialects.rows import actions_of
from molmoact2.serving.sessions import ServedSession
from molmoact2.wire.dialects.openpi import pack, unpack
from molmoact2.wire.limits import WireError

DIALECT = "openpi"
TAG = "embodiment"
"""Field with the robot's tag, for checkpoints that know several."""


def openpi_routes(desk: Desk) -> APIRouter:
    """/openpi."""
    router = APIRouter()

    websocket_route(router, "/openpi", desk, serve_openpi)
    return router


async def serve_openpi(line: Line, desk: Desk) -> None:
    """Answer until the client is gone. What is wrong is said as text, which its client raises; the line stays open."""
    try:
        session = desk.engine.sessions.open(client=f"openpi at {line.client}", dialect=DIALECT)
    except WireError as error:
        await line.say(str(error))
        raise await line.leave(1013, "no session") from error
    await line.say(pack(metadata(desk)))
    session.connections += 1
    last_total_s: float | None = None
    try:
        while True:
            data, arrived_s = await line.hear(), time.perf_counter()
            try:
                reply = await infer(desk, session, data, arrived_s, last_total_s)
            except WireError as error:
                desk.engine.heard_nonsense(DIALECT, error)
                await line.say(f"{error.code}: {error}")
            else:
                await line.say(reply)
                last_total_s = time.perf_counter() - arrived_s
    finally:
        session.connections -= 1
        desk.engine.sessions.close(session.id)


async def infer(desk: Desk, session: ServedSession, data: bytes, arrived_s: float, last_total_s: float | None) -> bytes:
    """The reply to one observation; WireError where it is refused."""
    fields = await desk.read(unpack, data)
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise WireError("An observation must be a map of names.")
    stats = desk.stats(fields.get(TAG))
    said = heard(fields, stats, desk.limits, known=(TAG,))
    ask = foreign_ask(desk.next_number(), said.observation, embodiment=stats.tag)
    exchange = await desk.engine.ask(session, ask, arrived_s=arrived_s)
    timing = {"infer_ms": 1000 * exchange.inference_s}
    reply: dict[str, Any] = {
        "actions": actions_of(exchange),
        "state": said.observation.state,
        "policy_timing": timing,
        "server_timing": timing if last_total_s is None else {**timing, "prev_total_ms": 1000 * last_total_s},
    }
    return pack(reply | ({"ignored": list(said.unknown)} if said.unknown else {}))


def metadata(desk: Desk) -> dict[str, Any]:
    """What is served, before anything is asked."""
    cards = [robot_card(desk.engine.policy.processor.tag(tag)) for tag in desk.engine.embodiments]
    return {
        "server": "molmoact2",
        "model": desk.model,
        "revision": desk.revision or "",
        "robots": {
            card.tag: {
                "cameras": list(card.cameras),
                "state_names": list(card.state_names),
                "action_names": list(card.action_names),
                "action_units": list(card.action_units),
                "control_hz": card.control_hz,
                "n_action_steps": card.n_action_steps,
                "control_mode": card.control_mode,
            }
            for card in cards
        },
    }
