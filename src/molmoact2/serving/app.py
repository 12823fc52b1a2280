"""The server: one port, several dialects, one engine behind them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

from molmoact2.serving.desk import Desk
from molmoact2.serving.dialects.own import own_routes
from molmoact2.serving.engine import Engine
from molmoact2.serving.security import Gate, Guard, answer_refusal
from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.limits import WireError

DIALECTS = (own_routes,)


def build_app(
    engine: Engine,
    settings: ServerSettings,
    *,
    model: str = "policy",
    revision: str | None = None,
    pages: Sequence[APIRouter] = (),
) -> FastAPI:
    """The ASGI application around an engine, which runs as long as it does.

    `model` and `revision` are what clients are told is served. `pages` are further routes; the dialects and
    /metadata ask for the token, pages do as they please.
    """
    guard = Guard(settings)
    desk = Desk(engine=engine, guard=guard, model=model, revision=revision)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(engine.run())
        yield
        engine.drain()
        await asyncio.wait([running])
        desk.readers.shutdown(wait=False)

    app = FastAPI(title="molmoact2", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Gate, guard=guard)
    app.add_exception_handler(WireError, answer_refusal)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, opaque(engine))
    for dialect in DIALECTS:
        app.include_router(dialect(desk), dependencies=[Depends(guard.require_token)])
    for page in (health_routes(engine), *pages):
        app.include_router(page)
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
