"""The server: one port, several dialects, one engine behind them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from molmoact2.serving.cards import robot_card
from molmoact2.serving.dashboard import Board, build_dashboard
from molmoact2.serving.desk import Desk
from molmoact2.serving.dialects.harness import harness_routes
from molmoact2.serving.dialects.openpi import openpi_routes
from molmoact2.serving.dialects.own import own_routes
from molmoact2.serving.dialects.root import root_routes
from molmoact2.serving.dialects.upstream import upstream_routes
from molmoact2.serving.engine import Engine
from molmoact2.serving.metrics import Metrics
from molmoact2.serving.security import Gate, Guard, answer_refusal
from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.limits import WireError

DIALECTS = (own_routes, upstream_routes, openpi_routes, harness_routes, root_routes)


def build_app(
    engine: Engine,
    settings: ServerSettings,
    *,
    model: str = "policy",
    revision: str | None = None,
) -> FastAPI:
    """The ASGI application around an engine, which runs as long as it does.

    `model` and `revision` are what clients are told is served. Everything asks for the token but /health, /ready and
    the dashboard's page, which is empty without it.
    """
    guard = Guard(settings)
    desk = Desk(engine=engine, guard=guard, model=model, revision=revision)
    metrics = Metrics(engine)
    board = Board([robot_card(engine.policy.processor.tag(tag)) for tag in engine.embodiments], model=model)
    engine.watchers += [metrics, board]
    engine.closing.append(board.close)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(engine.run())
        yield
        engine.drain()
        await running
        desk.readers.shutdown(wait=False)

    app = FastAPI(title="molmoact2", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Gate, guard=guard)
    app.add_exception_handler(WireError, answer_refusal)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, opaque(engine))
    for guarded in (metrics.routes(), *(dialect(desk) for dialect in DIALECTS)):
        app.include_router(guarded, dependencies=[Depends(guard.require_token)])
    app.include_router(build_dashboard(board, engine.operator, guard.require_token))
    app.include_router(health_routes(engine))
    return app


def opaque(engine: Engine):
    """What is said about an error of ours: an id, which the log explains."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        error_id = engine.failed(request.url.path, error)
        return JSONResponse({"error": f"Error {error_id}.", "code": "internal"}, 500)

    return answer


def health_routes(engine: Engine) -> APIRouter:
    """Is it alive, is it ready; anybody may ask."""
    router = APIRouter()

    @router.get("/health")
    @router.get("/healthz")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @router.get("/ready")
    async def ready() -> PlainTextResponse:
        return PlainTextResponse(f"{engine.state}\n", 200 if engine.state == "ready" else 503)

    return router
