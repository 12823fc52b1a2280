"""What the body of `POST /act` says, whichever of its clients wrote it."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from molmoact2.processing.norm_stats import TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.serving.desk import Desk
from molmoact2.serving.dialects.naming import Heard, heard
from molmoact2.wire.dialects.json_numpy import loads
from molmoact2.wire.images import decode_image
from molmoact2.wire.limits import Limits, WireError

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
DEFAULT_SESSION = "default"
"""Name of the session of clients that want one and do not name it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A body, its parts told apart."""

    said: Heard
    stats: TagStats
    num_steps: int | None
    num_action_steps: int | None
    is_serve_policy: bool
    """Whether it is to be answered in the words of `serve_policy`."""
    single_action: bool
    """Whether one action is wanted, and the others later."""
    session: str | None
    """What the client calls its session; None where nothing is to be remembered."""


def understood(body: Any, desk: Desk) -> Asked:
    """The parts of a body; WireError where they are none."""
    if isinstance(body, dict) and isinstance(body.get("encoded"), str):
        body = {"encoded": None, **as_map(loads(body["encoded"].encode(), desk.limits))}
    fields = {name: value for name, value in as_map(body).items() if name != "encoded"}
    stats = desk.stats(tag_in(fields, desk))
    numbers = {name: whole_number(name, fields.get(name)) for name in NUMBERS}
    flags = {name: truth(name, fields.get(name, False)) for name in FLAGS}
    session = fields.get("session_id", DEFAULT_SESSION if any(flags.values()) else None)
    if not isinstance(session, str | None) or numbers["n_obs_steps"] not in (None, 1):
        raise WireError("session_id must be text, and n_obs_steps 1.", code="unfit")
    images = images_in(fields.pop("images", None), stats)
    pictures = {name: pixels(value, desk.limits) for name, value in (fields | images).items()}
    return Asked(
        said=heard(pictures, stats, desk.limits, known=HEEDED),
        stats=stats,
        num_steps=numbers["num_steps"],
        num_action_steps=numbers["n_action_steps"],
        is_serve_policy=bool(body.keys() & SERVE_POLICY),
        single_action=flags["single_action"],
        session=session,
    )


def as_map(body: Any) -> dict[str, Any]:
    """`body`, if it is a JSON object."""
    if not isinstance(body, dict):
        raise WireError("The body must be a JSON object.")
    return body


def whole_number(name: str, value: Any) -> int | None:
    """A whole number, or nothing."""
    if value is not None and type(value) is not int:
        raise WireError(f"{name} must be a whole number, got {str(value)[:40]!r}.", code="unfit")
    return value


def truth(name: str, value: Any) -> bool:
    """True or false, also as text."""
    if not isinstance(value, bool | str) or value not in TRUTHS:
        raise WireError(f"{name} must be true or false, got {str(value)[:40]!r}.", code="unfit")
    return TRUTHS[value]


def tag_in(fields: Mapping[str, Any], desk: Desk) -> object:
    """The robot that a body names, or that its cameras belong to; None for the only one."""
    named = [fields[name] for name in TAGS if fields.get(name) is not None]
    likely = [tag for tag, cameras in FIELDS_OF.items() if fields.keys() >= cameras and tag in desk.engine.embodiments]
    return next(iter(named + likely), None)


def images_in(images: Any, stats: TagStats) -> dict[str, Any]:
    """The images of the field "images": by name, or a list in the order of the checkpoint's cameras."""
    cameras = [name.removeprefix(PREFIX) for name in stats.camera_keys]
    match images:
        case None:
            return {}
        case dict():
            return images
        case list() if len(images) == len(cameras):
            return dict(zip(cameras, images, strict=True))
    allowed = f"{len(cameras)} images in the order {', '.join(cameras)}, or a map of them by name"
    raise WireError(f"images must be {allowed}.", code="unfit")


def pixels(value: Any, limits: Limits) -> Any:
    """A picture that came as a data URL, decoded; anything else as it is. Nothing is ever opened by its name."""
    if not isinstance(value, str) or not value.startswith(DATA_URL):
        return value
    try:
        return decode_image(base64.b64decode(value.partition(",")[2], validate=True), limits)
    except binascii.Error as error:
        raise WireError("An image's data URL must be base64.") from error
