"""What is new on the board, as JSON for the page."""

import base64
import io
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from molmoact2.embodiments import JOINT_POSE_MODE
from molmoact2.serving.dashboard.board import Board, History, Planned, Shown, View
from molmoact2.serving.operator import EVERYONE, Operator
from molmoact2.types import DepthReasoning, Image
from molmoact2.wire.messages import RobotCard

STALE_S = 3.0
"""Seconds of silence after which a robot counts as not connected."""
LARGEST_SIDE = 640
JPEG_QUALITY = 80
DECIMALS = 4
"""Of joint positions."""

New = TypeVar("New", bound=Shown)


def news(board: Board, operator: Operator, history: History | None, since: int) -> dict[str, Any]:
    """Everything but pictures that came after version `since`; of the session `history`, where there is one."""
    message: dict[str, Any] = {
        "version": board.version,
        "now": board.clock(),
        "model": board.model,
        "everyone": operator.wish_of(EVERYONE).command,
        "sessions": [session_line(board, operator, one) for one in board.sessions],
        "errors": [
            {"at": one.at, "where": one.where, "id": one.error_id, "text": one.message}
            for one in after(board.errors, since)
        ],
        "chosen": None,
    }
    if history is None:
        return message
    motions = [one.telemetry for one in after(history.motions, since)]
    return message | {
        "chosen": history.session,
        "robot": robot_line(board.robots.get(history.embodiment)),
        "mode": history.mode,
        "notes": [{"at": one.at, "text": one.text} for one in after(history.notes, since)],
        "plans": [plan_line(one) for one in after(history.plans, since)],
        "motion": {
            "times": [time for one in motions for time in one.times.tolist()],
            "executed": [row for one in motions for row in rows(one.executed)],
            "measured": [row for one in motions for row in rows(one.measured)],
        },
    }


def after(shown: Iterable[New], version: int) -> list[New]:
    """Those that came later."""
    return [one for one in shown if one.version > version]


def session_line(board: Board, operator: Operator, history: History) -> dict[str, Any]:
    """A session in the list of sessions."""
    silent_s, wish = board.clock() - history.heard_at, operator.wish_of(history.session)
    alive = "live" if silent_s < STALE_S else "stale"
    return {
        "id": history.session,
        "client": history.client,
        "dialect": history.dialect,
        "embodiment": history.embodiment,
        "state": "over" if history.is_over else alive,
        "silent": round(silent_s, 1),
        "instruction": wish.instruction or history.instruction,
        "ours": wish.instruction is not None,
        "wish": wish.command,
    }


def robot_line(card: RobotCard | None) -> dict[str, Any] | None:
    """Names and units of the joints; "measured" says which number of the state each is compared with, if any."""
    if card is None:
        return None
    is_pose = card.control_mode == JOINT_POSE_MODE
    columns = {name: index for index, name in enumerate(card.state_names)} if is_pose else {}
    return {
        "tag": card.tag,
        "names": card.action_names,
        "units": card.action_units,
        "hz": card.control_hz,
        "limits": card.action_limits,
        "measured": [columns.get(name) for name in card.action_names],
    }


def plan_line(plan: Planned) -> dict[str, Any]:
    """An exchange: the plan and how long it took."""
    return {
        "number": plan.number,
        "at": plan.at,
        "state": rows(plan.state),
        "actions": None if plan.actions is None else rows(plan.actions),
        "refusal": plan.refusal,
        "total": plan.total_s,
        "queue": plan.queue_s,
        "inference": plan.inference_s,
        "together": plan.together,
    }


def rows(values: NDArray[np.floating]) -> Any:
    """Numbers as JSON has them: rounded, and null where there is none."""
    rounded = np.round(values.astype(np.float64), DECIMALS)
    return np.where(np.isfinite(rounded), rounded.astype(object), np.array(None)).tolist()


def pictures(view: View) -> dict[str, Any]:
    """The images of a view as JPEG, and its thought. Takes milliseconds: not for the event loop."""
    return {
        "cameras": [{"name": name, "jpeg": jpeg(image)} for name, image in view.images.items()],
        "thought": None if view.thought is None else thought_line(view.thought),
    }


def thought_line(thought: DepthReasoning) -> dict[str, Any]:
    """A depth map: its codes, what changed, and its picture where the checkpoint can make one."""
    preview = thought.preview
    return {
        "codes": thought.codes.tolist(),
        "changed": thought.changed.astype(int).tolist(),
        "age": thought.age,
        "jpeg": None if preview is None else jpeg(preview),
    }


def jpeg(image: Image) -> str:
    """A uint8 image as a data URL, no larger than it is shown."""
    picture, file = PillowImage.fromarray(np.asarray(image)), io.BytesIO()
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
