"""`POST /act`, json_numpy: the DROID and the YAM server's fields, and those of the multi-embodiment `serve_policy`.

    DROID          external_cam, wrist_cam, state [8], instruction            ->  actions, dt_ms
    YAM            top_cam, left_cam, right_cam, state [14], instruction      ->  actions, dt_ms
    serve_policy   images or cameras by name, state, one of its words for     ->  style, actions, action_shape, …
                   the instruction, norm_tag, session_id, action_chunk, …

`dt_ms` is how long the answer took to compute, and nothing about the robot's rate.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from molmoact2.serving.desk import Desk, foreign_ask
from molmoact2.serving.dialects.named_sessions import NamedSessions
from molmoact2.serving.dialects.rows import Rows, actions_of
from molmoact2.serving.dialects.upstream_fields import Asked, as_map, understood
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.security import client_of
from molmoact2.serving.sessions import ServedSession
from molmoact2.wire.dialects.json_numpy import dumps, loads
from molmoact2.wire.limits import Limits, WireError

DIALECT = "act"


def upstream_routes(desk: Desk) -> APIRouter:
    """/act and /reset."""
    router, sessions = APIRouter(), NamedSessions(desk, DIALECT)

    def read(body: bytes, limits: Limits) -> Asked:
        return understood(loads(body, limits), desk)

    @router.get("/act")
    async def about() -> Response:
        return json_numpy(whom(desk))

    @router.post("/act")
    async def act(request: Request) -> Response:
        arrived_s = time.perf_counter()
        try:
            asked = await desk.read(read, await desk.body(request))
            session, rows = sessions.of(client_of(request), asked.session)
            return json_numpy(await answer(desk, asked, session, rows, arrived_s))
        except WireError as error:
            desk.engine.heard_nonsense(DIALECT, error)
            if error.code == "busy" and error.retry_after_s is None:
                error.retry_after_s = desk.engine.retry_after_s
            raise

    @router.post("/reset")
    async def reset(request: Request) -> Response:
        wanted = as_map(await desk.read(loads, await desk.body(request)))
        name, prefix = wanted.get("session_id"), wanted.get("prefix")
        return json_numpy({"status": "ok", "removed": sessions.remove(client_of(request), name=name, prefix=prefix)})

    return router


async def answer(desk: Desk, asked: Asked, session: ServedSession, rows: Rows, arrived_s: float) -> dict[str, Any]:
    """What to say to a request, in the words of who asks."""
    exchanges: list[Exchange] = []

    async def plan() -> Exchange:
        ask = foreign_ask(
            desk.next_number(),
            asked.said.observation,
            embodiment=asked.stats.tag,
            num_steps=asked.num_steps,
            num_action_steps=asked.num_action_steps,
        )
        exchanges.append(await desk.engine.ask(session, ask, arrived_s=arrived_s))
        return exchanges[-1]

    if asked.single_action:
        is_held = desk.engine.operator.wish_of(session.id).is_held
        name, actions = "action", await rows.next(plan, is_held=is_held)
    else:
        name, actions = "actions", actions_of(await plan())
        rows.num_chunks += 1
    ignored = {"ignored": list(asked.said.unknown)} if asked.said.unknown else {}
    if not asked.is_serve_policy:
        return {name: actions, "dt_ms": 1000 * exchanges[0].inference_s, **ignored}
    return {
        "style": "robot_action",
        name: actions.tolist(),
        "action_shape": list(np.shape(actions)),
        "latency_ms": 1000 * (time.perf_counter() - arrived_s),
        **({} if asked.session is None else {"inference_calls": rows.num_chunks}),
        **ignored,
    }


def whom(desk: Desk) -> dict[str, Any]:
    """What is served; where that is several robots, the first of them."""
    policy = desk.engine.policy
    stats = policy.processor.tag(desk.engine.embodiments[0])
    return {
        "status": "ok",
        "repo_id": desk.model,
        "norm_tag": stats.tag,
        "device": str(policy.device),
        "dtype": str(next(policy.model.parameters()).dtype).removeprefix("torch."),
        "num_cameras": len(stats.camera_keys),
        "state_dim": stats.state.width,
    }


def json_numpy(value: Mapping[str, Any]) -> Response:
    """A reply."""
    return Response(dumps(value), media_type="application/json")
