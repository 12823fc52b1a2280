"""The websocket at /, where both openpi's and the harness's clients connect by default.

The harness's client says hello at once, openpi's waits for the server to speak: who is silent for a moment is openpi's.
On a slow network use /openpi and /harness, where nobody has to guess.
"""

from fastapi import APIRouter

from molmoact2.serving.desk import Desk, Line, websocket_route
from molmoact2.serving.dialects.harness import serve_harness
from molmoact2.serving.dialects.openpi import serve_openpi

MOMENT_S = 0.5


def root_routes(desk: Desk) -> APIRouter:
    """/."""
    router = APIRouter()

    websocket_route(router, "/", desk, serve_whoever)
    return router


async def serve_whoever(line: Line, desk: Desk) -> None:
    """Wait a moment for who speaks first."""
    first = await line.hear_within(MOMENT_S)
    await (serve_openpi(line, desk) if first is None else serve_harness(line, desk, first))
