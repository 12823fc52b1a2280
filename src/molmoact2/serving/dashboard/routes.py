"""The dashboard's routes: the page, its live news, and what an operator can do.

    GET  /                         the page: no secrets in it, so no token is asked for
    GET  /dashboard/FILE           its style and its scripts
    GET  /dashboard/live           server-sent events, about ten a second while something happens
    POST /dashboard/command        hold, resume or stop one robot or all of them
    POST /dashboard/instruction    what to do instead

Who watches is sent what is new since the last time, so a slow viewer sees fewer pictures and delays nobody.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response, StreamingResponse

from molmoact2.serving.dashboard.board import Board, View
from molmoact2.serving.dashboard.news import news, pictures
from molmoact2.serving.operator import MAX_INSTRUCTION, Command, Operator
from molmoact2.wire.limits import WireError

PAGE = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
FILES = tuple(sorted(path.name for path in PAGE.iterdir() if path.suffix in TYPES))
PERIOD_S = 0.1
"""Between two looks at the board."""
HEARTBEAT_S = 1.0
"""A viewer hears at least so often, so that it knows when the server is gone."""
NUM_VIEWERS = 16
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class CommandBody(BaseModel):
    """What is wanted of a robot."""

    model_config = ConfigDict(extra="forbid")
    session: str = Field(max_length=200)
    """Its session, or "*" for all."""
    command: Command


class InstructionBody(BaseModel):
    """What a robot shall do."""

    model_config = ConfigDict(extra="forbid")
    session: str = Field(max_length=200)
    text: str | None = Field(max_length=MAX_INSTRUCTION)
    """None gives the client's own instruction back."""


class Viewers:
    """Those who watch, and the pictures that are made for them and for nobody else."""

    def __init__(self, board: Board, operator: Operator) -> None:
        """Show what is on the board."""
        self.board, self.operator = board, operator
        self.count = 0
        self._drawn: tuple[View, dict[str, Any]] | None = None

    async def watch(self, session: str | None) -> AsyncIterator[str]:
        """Server-sent events about a session, or about the newest, for as long as somebody reads them."""
        self.count += 1
        try:
            async for message in self._messages(session):
                yield f"data: {json.dumps(message, allow_nan=False, separators=(',', ':'))}\n\n"
        finally:
            self.count -= 1

    async def _messages(self, name: str | None) -> AsyncIterator[dict[str, Any]]:
        watched, seen, since, known, due = None, None, 0, None, 0.0
        while self.board.is_open:
            history = self.board.session(name)
            is_fresh = known is None or history is not watched
            since = 0 if is_fresh else since
            message = news(self.board, self.operator, history, since) | {"fresh": is_fresh}
            now, state = time.monotonic(), (message["version"], message["everyone"], wishes(message))
            if is_fresh or state != known or now >= due:
                view = None if history is None else history.view
                if view is not None and view is not seen:
                    message |= await self._pictures(view)
                yield message
                watched, seen, since, known, due = history, view, message["version"], state, now + HEARTBEAT_S
            await asyncio.sleep(PERIOD_S)

    async def _pictures(self, view: View) -> dict[str, Any]:
        """The pictures of a view, made once for all who watch it."""
        if self._drawn is None or self._drawn[0] is not view:
            self._drawn = view, await asyncio.to_thread(pictures, view)
        return self._drawn[1]


def wishes(message: dict[str, Any]) -> list[Any]:
    """What is wanted of every session, which changes without news from the robots."""
    return [(line["id"], line["wish"], line["ours"]) for line in message["sessions"]]


def build_dashboard(
    board: Board, operator: Operator, require_token: Callable[[HTTPConnection], Awaitable[None]]
) -> APIRouter:
    """The routes of the dashboard; everything that shows or changes something asks `require_token`.

    `board` has to be among the engine's watchers, and has to be closed when the server ends.
    """
    router, viewers, guarded = APIRouter(), Viewers(board, operator), [Depends(require_token)]

    @router.get("/")
    async def page() -> Response:
        return page_file("dashboard.html")

    @router.get("/dashboard/live", dependencies=guarded)
    async def live(session: str | None = None) -> Response:
        if viewers.count >= NUM_VIEWERS:
            raise WireError(f"{NUM_VIEWERS} are watching already.", code="busy", retry_after_s=5.0)
        return StreamingResponse(viewers.watch(session), media_type="text/event-stream", headers=HEADERS)

    @router.post("/dashboard/command", dependencies=guarded)
    async def command(body: CommandBody) -> Response:
        return answered(lambda: operator.command(body.session, body.command))

    @router.post("/dashboard/instruction", dependencies=guarded)
    async def instruct(body: InstructionBody) -> Response:
        return answered(lambda: operator.instruct(body.session, body.text))

    @router.get("/dashboard/{name}")
    async def file(name: str) -> Response:
        return page_file(name)

    return router


def page_file(name: str) -> Response:
    """A file of the page; 404 for anything else."""
    if name not in FILES:
        return JSONResponse({"error": "There is no such page."}, 404, HEADERS)
    path = PAGE / name
    return Response(path.read_bytes(), media_type=TYPES[path.suffix], headers=HEADERS)


def answered(act: Callable[[], None]) -> Response:
    """Do it; 400 with advice where it cannot be done."""
    try:
        act()
    except ValueError as error:
        return JSONResponse({"error": str(error), "code": "unfit"}, 400, HEADERS)
    return JSONResponse({"status": "ok"}, headers=HEADERS)
