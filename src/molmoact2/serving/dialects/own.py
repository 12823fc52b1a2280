"""Our own protocol, `molmoact2.wire.messages`, on the websocket /v1; `GET /metadata` says the Welcome as JSON."""

import asyncio
import time
from dataclasses import asdict

from fastapi import APIRouter
from starlette.websockets import WebSocket, WebSocketDisconnect

from molmoact2.serving.cards import welcome
from molmoact2.serving.desk import Desk, Line
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.sessions import ServedSession
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import WireError
from molmoact2.wire.messages import (
    PROTOCOL_VERSION,
    Answer,
    Ask,
    Control,
    Hello,
    Message,
    Refusal,
    Reset,
    Telemetry,
    Thought,
)

DIALECT = "molmoact2"


def own_routes(desk: Desk) -> APIRouter:
    """/v1 and /metadata."""
    router = APIRouter()

    @router.websocket("/v1")
    async def converse(websocket: WebSocket) -> None:
        await websocket.accept()
        line = Line(websocket, desk)
        try:
            await Conversation(line, desk, await begun(line, desk)).run()
        except* WebSocketDisconnect:
            pass  # the session stays, for a client that comes back

    @router.get("/metadata")
    async def metadata() -> dict[str, object]:
        return asdict(welcome(desk, session=""))

    return router


async def begun(line: Line, desk: Desk) -> ServedSession:
    """Hello and Welcome; WebSocketDisconnect where a client says anything else."""
    try:
        hello = await desk.read(decode, await line.hear(desk.guard.settings.first_byte_s))
        if not isinstance(hello, Hello) or hello.protocol != PROTOCOL_VERSION:
            raise WireError(f"Say Hello first, in protocol {PROTOCOL_VERSION}.")
        known = desk.engine.sessions.find(hello.session or "")
        client = f"{hello.client[:80]} at {line.client}"
        session = known or desk.engine.sessions.open(client=client, dialect=DIALECT)
    except WireError as error:
        await line.say(encode(Refusal(code=error.code, message=str(error), retry_after_s=error.retry_after_s)))
        raise await line.leave(1002 if error.code == "malformed" else 1013, "no session") from error
    await line.say(encode(welcome(desk, session.id)))
    return session


class Conversation:
    """One connection after its Welcome. Questions are answered as they are ready; newer ones are heard meanwhile."""

    def __init__(self, line: Line, desk: Desk, session: ServedSession) -> None:
        """Go on with `session`."""
        self.line, self.desk, self.session = line, desk, session

    async def run(self) -> None:
        """Hear and answer until the client is gone."""
        self.session.connections += 1
        try:
            async with asyncio.TaskGroup() as tasks:

                def push(control: Control) -> None:
                    tasks.create_task(self.line.say(encode(control)))

                with self.desk.engine.operator.heard_by(self.session.id, push):
                    while True:
                        data = await self.line.hear()
                        await self.take(data, time.perf_counter(), tasks)
        finally:
            self.session.connections -= 1

    async def take(self, data: bytes, arrived_s: float, tasks: asyncio.TaskGroup) -> None:
        """Do what one message wants; one that is malformed changes nothing."""
        try:
            message = await self.desk.read(decode, data)
        except WireError as error:
            message = error
        match message:
            case Ask():
                tasks.create_task(self.answer(message, arrived_s))
            case Reset():
                self.desk.engine.reset(self.session, message.seed)
            case Telemetry():
                self.desk.engine.moved(self.session, message)
            case _:
                complaint = message if isinstance(message, WireError) else WireError("Only clients are to say that.")
                self.desk.engine.heard_nonsense(DIALECT, complaint)
                await self.line.say(encode(Refusal(code=complaint.code, message=str(complaint))))

    async def answer(self, ask: Ask, arrived_s: float) -> None:
        """Ask the engine and say what it said."""
        exchange = await self.desk.engine.ask(self.session, ask, arrived_s=arrived_s)
        await self.line.say(encode(reply(ask, exchange, self.desk.engine.retry_after_s)))


def reply(ask: Ask, exchange: Exchange, retry_after_s: float) -> Message:
    """What to say about an exchange."""
    if exchange.refusal is not None or exchange.chunk is None:
        code, message = exchange.refusal or ("internal", "no answer")
        retry = retry_after_s if code == "busy" else None
        return Refusal(code=code, message=message, id=ask.id, retry_after_s=retry)
    chunk, depth = exchange.chunk, exchange.chunk.depth
    own = {"queue": exchange.queue_s, "inference": exchange.inference_s, "total": exchange.total_s}
    return Answer(
        id=ask.id,
        observed_at=ask.observed_at,
        actions=chunk.actions,
        seed=exchange.question.seed,
        timing={**chunk.timing, **own},
        thought=None if depth is None else Thought(codes=depth.codes, changed=depth.changed, age=depth.age),
    )
