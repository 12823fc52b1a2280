"""Talk to a policy server from a robot: numpy, msgpack, pillow and websockets are all it needs.

    with Client("ws://127.0.0.1:8000") as client:
        client.reset(seed=0)
        chunk = client.act(observation)

What goes wrong is one of the errors below, or a ValueError for what no server would take.
"""

from molmoact2.client.asynchronous import AsyncClient
from molmoact2.client.errors import ConnectionLostError, LateError, RefusedError, WrongQuestionError
from molmoact2.client.link import Backoff
from molmoact2.client.planner import RemotePlanner
from molmoact2.client.policy import RemotePolicy
from molmoact2.client.questions import AskOptions
from molmoact2.client.synchronous import Client

__all__ = [
    "AskOptions",
    "AsyncClient",
    "Backoff",
    "Client",
    "ConnectionLostError",
    "LateError",
    "RefusedError",
    "RemotePlanner",
    "RemotePolicy",
    "WrongQuestionError",
]
