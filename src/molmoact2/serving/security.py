"""Who may ask: the token, the name that the server was called by, the page that a browser sends from, the rate.

A server on this computer alone needs no token, but any web page that is open here can send it requests. A browser says
where the page is from (Origin) and whom it means to reach (Host): both have to be us.
"""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.limits import Code, WireError

SCHEMES = ("bearer", "api-key")
"""Of the Authorization header; openpi's client says the latter."""
MAX_CLIENTS = 4096
"""Clients whose rate is kept in mind."""
STATUS: dict[Code, int] = {
    "malformed": 400,
    "unfit": 400,
    "unauthorized": 401,
    "superseded": 409,
    "held": 423,
    "internal": 500,
    "busy": 503,
    "late": 504,
}


class Rate:
    """So many messages of each client in a second, and twice as many at once."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Everyone begins rested."""
        self.per_s, self.clock = per_s, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Count one message; False where it is one too many."""
        now, most = self.clock(), 2 * self.per_s
        left, then = self._buckets.pop(client, (most, now))
        left = min(most, left + (now - then) * self.per_s)
        self._buckets[client] = (left - (left >= 1), now)
        while len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1


class Guard:
    """Decides about every request before anything of it is read."""

    def __init__(self, settings: ServerSettings) -> None:
        """Nothing is remembered but the rates."""
        self.settings = settings
        self.rate = Rate(settings.messages_per_s)

    def has_token(self, authorization: str) -> bool:
        """Whether a header "Authorization" holds the token; takes equally long for every wrong one."""
        scheme, _, given = authorization.partition(" ")
        token = self.settings.token or ""
        is_right = hmac.compare_digest(given.strip().encode(), token.encode())
        return self.settings.token is None or (scheme.lower() in SCHEMES and is_right)

    async def require_token(self, connection: HTTPConnection) -> None:
        """For `Depends`: WireError "unauthorized" without the token."""
        if not self.has_token(connection.headers.get("authorization", "")):
            raise WireError("A token is needed: send the header 'Authorization: Bearer TOKEN'.", code="unauthorized")

    def objection(self, connection: HTTPConnection) -> JSONResponse | None:
        """The answer to a request that goes no further, whoever sends it."""
        host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
        allowed = self.settings.allowed_hosts
        if allowed is not None and parts(f"//{host}").hostname not in allowed:
            return JSONResponse({"error": f"This server is not called {host[:80]!r}: use 127.0.0.1, or --name."}, 403)
        if origin is not None and parts(origin).netloc != host:
            return JSONResponse({"error": "Pages of other sites may not talk to this server."}, 403)
        if not self.rate.take(client_of(connection)):
            most = f"At most {self.settings.messages_per_s:g} messages a second."
            return JSONResponse({"error": most}, 429, {"Retry-After": "1"})
        return None


class Gate:
    """ASGI middleware: what the guard objects to goes no further."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        """Stand before `app`."""
        self.app, self.guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is objected to, pass on the others."""
        objection = None if scope["type"] == "lifespan" else self.guard.objection(HTTPConnection(scope))
        match objection, scope["type"]:
            case None, _:
                await self.app(scope, receive, send)
            case response, "websocket":
                await WebSocket(scope, receive, send).send_denial_response(response)
            case response, _:
                await response(scope, receive, send)


async def answer_refusal(connection: Request | WebSocket, error: WireError) -> JSONResponse | None:
    """How a WireError is told over HTTP, also to a websocket that was not accepted yet."""
    retry = None if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
    response = JSONResponse({"error": str(error), "code": error.code}, STATUS[error.code], retry)
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(response)
        return None
    return response


def client_of(connection: HTTPConnection) -> str:
    """The address of who asks."""
    return connection.client.host if connection.client else "unknown"


def parts(url: str) -> SplitResult:
    """The parts of a URL; empty ones where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
