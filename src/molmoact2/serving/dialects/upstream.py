"""`POST /act`, json_numpy: the DROID and the YAM server's fields, and those of the multi-embodiment `serve_policy`.

    DROID          external_cam, wrist_cam, state [8], instruction            ->  actions, dt_ms
    YAM            top_cam, left_cam, right_cam, state [14], instruction      ->  actions, dt_ms
    serve_policy   images or cameras by name, state, one of its words for     ->  style, actions, action_shape, …
                   the instruction, norm_tag, session_id, action_chunk, …

`dt_ms` is how long the answer took to compute, and nothing about the robot's rate.
"""

import base64
import binascii
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from molmoact2.processing.norm_stats import TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.serving.desk import Desk, foreign_ask
from molmoact2.serving.dialects.naming import heard
from molmoact2.serving.dialects.rows import Rows, actions_of
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.security import answer_refusal, client_of
from molmoact2.serving.sessions import ServedSession
from molmoact2.wire.dialects.json_numpy import dumps, loads
from molmoact2.wire.images import decode_image
from molmoact2.wire.limits import Limits, WireError

DIALECT = "act"
FIELDS_OF: Mapping[str, frozenset[str]] = {
    "franka_droid": frozenset({"external_cam", "wrist_cam"}),
    "yam_dual_molmoact2": frozenset({"top_cam", "left_cam", "right_cam"}),
}
"""Embodiment -> cameras by which its clients are known, where a checkpoint knows several robots."""
SERVE_POLICY = {"images", "tag", "norm_tag", "states", "task", "prompt", "question", "encoded", "session_id"} | {
    "n_action_steps", "n_obs_steps", "single_action", "action_chunk"
}  # fmt: skip
"""Fields that only clients of `serve_policy` send; they are answered in its words."""
UNHEEDED = ("timestamp", "normalization_tag", "enable_cuda_graph")
"""Fields that DROID and YAM clients send and that change nothing."""
TAGS = ("tag", "norm_tag")
NUMBERS = ("num_steps", "n_action_steps", "n_obs_steps")
FLAGS = ("single_action", "action_chunk")
HEEDED = (*TAGS, *NUMBERS, *FLAGS, *UNHEEDED, "session_id")
TRUTHS: Mapping[Any, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
DATA_URL = "data:image/"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The body of a request, its parts told apart."""

    fields: Mapping[str, Any]
    stats: TagStats
    numbers: Mapping[str, int]
    is_serve_policy: bool
    single_action: bool
    keeps_session: bool
    session: str | None


def upstream_routes(desk: Desk) -> APIRouter:
    """/act and /reset."""
    router, sessions = APIRouter(), NamedSessions(desk)

    @router.get("/act")
    async def about() -> Response:
        stats = desk.engine.policy.processor.tag(desk.engine.embodiments[0])
        return json_numpy(
            {
                "status": "ok",
                "repo_id": desk.model,
                "norm_tag": stats.tag,
                "device": str(desk.engine.policy.device),
                "dtype": str(next(desk.engine.policy.model.parameters()).dtype).removeprefix("torch."),
                "num_cameras": len(stats.camera_keys),
                "state_dim": stats.state.width,
            }
        )

    @router.post("/act")
    async def act(request: Request) -> Response:
        arrived_s = time.perf_counter()
        try:
            asked = understood(await desk.read(loads, await desk.body(request)), desk)
            return json_numpy(await answer(asked, sessions, client_of(request), arrived_s))
        except WireError as error:
            return await refused(desk, request, error)

    @router.post("/reset")
    async def reset(request: Request) -> Response:
        body = await desk.read(loads, await desk.body(request))
        wanted = body if isinstance(body, dict) else {}
        removed = sessions.remove(client_of(request), wanted.get("session_id"), wanted.get("prefix"))
        return json_numpy({"status": "ok", "removed": removed})

    return router


def understood(body: Any, desk: Desk) -> Asked:
    """The parts of a body; WireError where they are none."""
    if isinstance(body, dict) and isinstance(body.get("encoded"), str):
        body = {"encoded": None, **loads(body["encoded"].encode(), desk.limits)}
    if not isinstance(body, dict):
        raise WireError("The body must be a JSON object.")
    fields = {name: value for name, value in body.items() if name != "encoded"}
    stats = desk.stats(tag_in(fields, desk))
    numbers = {name: fields[name] for name in NUMBERS if fields.get(name) is not None}
    wrong = [name for name, value in numbers.items() if type(value) is not int]
    flags = {name: fields.get(name, False) for name in FLAGS}
    wrong += [name for name, value in flags.items() if not isinstance(value, bool | str) or value not in TRUTHS]
    if wrong or numbers.pop("n_obs_steps", 1) != 1:
        raise WireError(f"{', '.join(wrong) or 'n_obs_steps'} must be a whole number, or true or false; n_obs_steps 1.")
    session = fields.get("session_id")
    if session is not None and not isinstance(session, str):
        raise WireError("session_id must be text.")
    return Asked(
        fields=fields,
        stats=stats,
        numbers=numbers,
        is_serve_policy=bool(body.keys() & SERVE_POLICY),
        single_action=TRUTHS[flags["single_action"]],
        keeps_session=TRUTHS[flags["action_chunk"]] or session is not None,
        session=session,
    )


def tag_in(fields: Mapping[str, Any], desk: Desk) -> object:
    """The robot that a body names, or that its cameras belong to; None for the only one."""
    named = [fields[name] for name in TAGS if fields.get(name) is not None]
    likely = [tag for tag, cameras in FIELDS_OF.items() if fields.keys() >= cameras and tag in desk.engine.embodiments]
    return next(iter(named + likely), None)


async def answer(asked: Asked, sessions: "NamedSessions", client: str, arrived_s: float) -> dict[str, Any]:
    """What to say to a request, in the words of who asks."""
    desk, steps = sessions.desk, asked.numbers.get("n_action_steps")
    images = images_in(asked.fields.get("images"), asked.stats, desk.limits)
    fields = {name: pixels(value, desk.limits) for name, value in asked.fields.items() if name != "images"} | images
    said = heard(fields, asked.stats, desk.limits, known=HEEDED)
    ask = foreign_ask(
        desk.next_number(),
        said.observation,
        embodiment=asked.stats.tag,
        num_steps=asked.numbers.get("num_steps"),
        num_action_steps=steps,
    )
    session, rows = sessions.of(client, asked.session, keep=asked.keeps_session or asked.single_action)
    told: list[Exchange] = []

    async def plan() -> Exchange:
        told.append(await desk.engine.ask(session, ask, arrived_s=arrived_s))
        return told[-1]

    if asked.single_action:
        if desk.engine.operator.wish_of(session.id).is_held:
            rows.clear()
        result: dict[str, Any] = {"action": (await rows.next(plan)).tolist()}
    else:
        result = {"actions": actions_of(await plan())}
    inference_ms = sum(1000 * exchange.inference_s for exchange in told)
    ignored = {"ignored": list(said.unknown)} if said.unknown else {}
    if not asked.is_serve_policy:
        return {**result, "dt_ms": inference_ms, **ignored}
    kept = {"inference_calls": rows.num_chunks} if asked.keeps_session or asked.single_action else {}
    return {
        "style": "robot_action",
        **{name: np.asarray(value).tolist() for name, value in result.items()},
        "action_shape": list(np.shape(next(iter(result.values())))),
        "latency_ms": 1000 * (time.perf_counter() - arrived_s),
        **kept,
        **ignored,
    }


def images_in(images: Any, stats: TagStats, limits: Limits) -> dict[str, Any]:
    """The images of the field "images": by name, or a list in the order of the checkpoint's cameras."""
    cameras = [name.removeprefix(PREFIX) for name in stats.camera_keys]
    match images:
        case None:
            return {}
        case dict():
            return {str(name): pixels(image, limits) for name, image in images.items()}
        case list() if len(images) == len(cameras):
            return {name: pixels(image, limits) for name, image in zip(cameras, images, strict=True)}
    raise WireError(
        f"images must be {len(cameras)} images in the order {', '.join(cameras)}, or a map of them by name.",
        code="unfit",
    )


def pixels(value: Any, limits: Limits) -> Any:
    """A picture that came as a data URL, decoded; anything else as it is. Nothing is ever opened by its name."""
    if not isinstance(value, str) or not value.startswith(DATA_URL):
        return value
    try:
        return decode_image(base64.b64decode(value.partition(",")[2], validate=True), limits)
    except binascii.Error as error:
        raise WireError("An image's data URL must be base64.") from error


class NamedSessions:
    """Sessions that clients name by themselves; a name means something to the address that it comes from only."""

    def __init__(self, desk: Desk) -> None:
        """None yet."""
        self.desk = desk
        self._kept: dict[tuple[str, str | None], tuple[str, Rows]] = {}

    def of(self, client: str, name: str | None, *, keep: bool) -> tuple[ServedSession, Rows]:
        """The session of this name. Unless it is to be kept, each of its questions stands for itself."""
        key = (client, name if keep else None)
        session_id, rows = self._kept.get(key, ("", Rows()))
        session = self.desk.engine.sessions.find(session_id)
        if session is None:
            self._forget_those_that_ended()
            called = client if name is None else f"{name[:40]} at {client}"
            session = self.desk.engine.sessions.open(client=called, dialect=DIALECT, remembers=keep)
            rows = Rows()
            self._kept[key] = (session.id, rows)
        return session, rows

    def remove(self, client: str, name: Any, prefix: Any) -> int:
        """Begin anew: forget the session of a name, those of a prefix, or all of this client's without either."""
        mine = [key for key in self._kept if key[0] == client]
        named = [key for key in mine if key[1] == name or (prefix and f"{key[1]}".startswith(f"{prefix}:"))]
        gone = named if name or prefix else mine
        for key in gone:
            self.desk.engine.sessions.close(self._kept.pop(key)[0])
        return len(gone)

    def _forget_those_that_ended(self) -> None:
        alive = set(self.desk.engine.sessions)
        self._kept = {key: kept for key, kept in self._kept.items() if kept[0] in alive}


def json_numpy(value: Mapping[str, Any], status: int = 200) -> Response:
    """A reply."""
    return Response(dumps(value), status, media_type="application/json")


async def refused(desk: Desk, request: Request, error: WireError) -> Response:
    """How this dialect tells a refusal: {"error": …}, with the status and Retry-After of all others."""
    desk.engine.heard_nonsense(DIALECT, error)
    if error.code == "busy":
        error.retry_after_s = desk.engine.retry_after_s if error.retry_after_s is None else error.retry_after_s
    response = await answer_refusal(request, error)
    assert response is not None
    return response
