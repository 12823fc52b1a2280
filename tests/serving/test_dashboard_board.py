"""The board keeps the newest and no more; news are what is new, as JSON; pictures are made for those who watch."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from made_up_flights import made_up, telemetry

from molmoact2.embodiments import DELTA_POSE_MODE, EMBODIMENTS
from molmoact2.serving.dashboard import board as board_module
from molmoact2.serving.dashboard import routes
from molmoact2.serving.dashboard.board import NUM_ERRORS, NUM_NOTES, NUM_PLANS, NUM_SESSIONS, NUM_TICKS, Board
from molmoact2.serving.dashboard.news import STALE_S, news, pictures
from molmoact2.serving.dashboard.routes import Viewers
from molmoact2.serving.operator import Operator
from molmoact2.types import ActionChunk, DepthReasoning
from molmoact2.wire.messages import RobotCard

SO101 = EMBODIMENTS["so101_tabletop"]


def card(**changes) -> RobotCard:
    fields = {name: vars(SO101)[name] for name in ("tag", "cameras", "state_names", "action_names", "action_units")}
    fields |= {name: vars(SO101)[name] for name in ("control_hz", "action_horizon", "n_action_steps", "setup")}
    fields |= {"control_mode": SO101.control_mode, "normalization": "", "state_statistics": {}, "action_statistics": {}}
    return RobotCard(**{**fields, **changes})


def told(board: Board, since: int = 0, session: str | None = None, operator: Operator | None = None) -> dict:
    """News as the page gets them."""
    message = news(board, operator or Operator(), board.session(session), since)
    return json.loads(json.dumps(message, allow_nan=False))


def test_what_is_kept_is_bounded():
    board = Board()
    for number in range(NUM_PLANS + 50):
        board.exchanged(made_up(number))
        board.moved("one", telemetry(float(number), ticks=100, notes=("a note",)))
        board.failed("somewhere", "id", "it broke")
    history = board.session("one")
    assert history is not None
    assert (len(history.plans), len(history.notes), len(board.errors)) == (NUM_PLANS, NUM_NOTES, NUM_ERRORS)
    assert history.num_ticks <= NUM_TICKS
    for number in range(NUM_SESSIONS + 9):
        board.exchanged(made_up(number, session=f"session {number}"))
    assert len(board.sessions) == NUM_SESSIONS
    assert board.sessions[0].session == f"session {NUM_SESSIONS + 8}"


def test_sessions_that_are_over_make_room_first():
    board = Board()
    for number in range(NUM_SESSIONS):
        board.exchanged(made_up(number, session=f"session {number}"))
    board.ended("session 30")
    board.exchanged(made_up(0, session="new"))
    assert board.session("session 30") is None
    assert board.session("session 0") is not None


def test_only_the_newest_images_are_kept():
    board = Board()
    board.exchanged(made_up(1))
    board.exchanged(made_up(2))
    history = board.session(None)
    assert history is not None
    assert history.view is not None
    assert np.array_equal(history.view.images["front"], dict(made_up(2).question.observation.images)["front"])
    assert all("images" not in vars(plan) for plan in history.plans)


def test_news_are_what_came_since():
    board = Board([card()])
    board.exchanged(made_up(0))
    seen = board.version
    board.moved("one", telemetry(5.0, notes=("slow",), mode="slow"))
    board.exchanged(made_up(1, chunk=None, refusal=("late", "too late")))
    message = told(board, since=seen)
    assert [plan["number"] for plan in message["plans"]] == [1]
    assert message["plans"][0]["refusal"] == ["late", "too late"]
    assert message["mode"] == "slow"
    assert [note["text"] for note in message["notes"]] == ["slow"]
    assert len(message["motion"]["times"]) == len(message["motion"]["executed"]) == 3
    assert [plan["number"] for plan in told(board)["plans"]] == [0, 1]
    assert told(board, since=board.version)["plans"] == []


def test_numbers_that_are_none_become_null():
    board = Board()
    board.exchanged(made_up(0, chunk=ActionChunk(actions=np.full((1, 2), np.nan, np.float32))))
    assert told(board)["plans"][0]["actions"] == [[None, None]]


def test_joints_are_compared_with_the_state_only_where_that_means_something():
    board = Board([card()])
    board.exchanged(made_up(0))
    assert told(board)["robot"]["measured"] == list(range(6))
    board = Board([card(control_mode=DELTA_POSE_MODE)])
    board.exchanged(made_up(0))
    assert told(board)["robot"]["measured"] == [None] * 6
    assert told(Board())["chosen"] is None


def test_a_robot_that_is_silent_is_stale_and_one_that_left_is_over():
    now = [100.0]
    board = Board(clock=lambda: now[0])
    board.exchanged(made_up(0))
    assert told(board)["sessions"][0]["state"] == "live"
    now[0] += STALE_S + 0.1
    assert told(board)["sessions"][0]["state"] == "stale"
    board.ended("one")
    assert told(board)["sessions"][0]["state"] == "over"
    board.ended("nobody")
    assert len(board.sessions) == 1


def test_what_the_operator_wants_is_told():
    board, operator = Board(), Operator()
    board.exchanged(made_up(0))
    operator.command("one", "hold")
    operator.instruct("one", "something else")
    (line,) = told(board, operator=operator)["sessions"]
    assert (line["wish"], line["instruction"], line["ours"]) == ("hold", "something else", True)


def test_pictures_are_jpegs_and_thoughts_have_theirs():
    board = Board()
    depth = made_up(0).chunk
    assert depth is not None
    drawn = DepthReasoning(
        codes=np.zeros(4, np.int64),
        changed=np.ones(4, bool),
        decoder=lambda codes: np.zeros((8, 8, 3), np.uint8) + len(codes),
    )
    board.exchanged(made_up(0, height=1000, width=2000, chunk=replace(depth, depth=drawn)))
    history = board.session(None)
    assert history is not None
    assert history.view is not None
    message = pictures(history.view)
    assert [camera["name"] for camera in message["cameras"]] == ["front", "wrist"]
    assert all(camera["jpeg"].startswith("data:image/jpeg;base64,") for camera in message["cameras"])
    assert message["thought"]["jpeg"].startswith("data:image/jpeg;base64,")
    assert len(message["cameras"][0]["jpeg"]) < 640 * 320 * 3


async def first(messages: AsyncIterator[str], count: int) -> list[dict]:
    found = []
    async for text in messages:
        found.append(json.loads(text.removeprefix("data: ")))
        if len(found) == count:
            break
    return found


def test_pictures_are_made_only_for_those_who_watch_and_once_for_all(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(routes, "pictures", lambda view: made.append(view) or {"cameras": []})
    monkeypatch.setattr(routes, "PERIOD_S", 0.001)

    async def watch() -> None:
        board = Board()
        viewers = Viewers(board, Operator())
        for number in range(5):
            board.exchanged(made_up(number))
        assert not made
        streams = [viewers.watch(None) for _ in range(3)]
        for stream in streams:
            (message,) = await first(stream, 1)
            assert "cameras" in message
        assert len(made) == 1
        assert viewers.count == 3
        for stream in streams:
            await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
        assert viewers.count == 0

    asyncio.run(watch())


def test_a_viewer_hears_wishes_and_heartbeats_and_goes_when_the_board_closes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routes, "PERIOD_S", 0.001)
    monkeypatch.setattr(routes, "HEARTBEAT_S", 0.01)

    async def watch() -> None:
        board, operator = Board(), Operator()
        board.exchanged(made_up(0))
        stream = Viewers(board, operator).watch(None)
        begin, beat = await first(stream, 2)
        assert (begin["fresh"], beat["fresh"], beat["plans"]) == (True, False, [])
        operator.command("one", "stop")
        while (await first(stream, 1))[0]["sessions"][0]["wish"] != "stop":
            pass
        board.close()
        assert [message async for message in stream] == []

    asyncio.run(watch())


def test_another_session_begins_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(routes, "PERIOD_S", 0.001)

    async def watch() -> None:
        board = Board()
        board.exchanged(made_up(0))
        stream = Viewers(board, Operator()).watch(None)
        await first(stream, 1)
        board.exchanged(made_up(1, session="two"))
        (message,) = await first(stream, 1)
        assert (message["chosen"], message["fresh"], len(message["plans"])) == ("two", True, 1)

    asyncio.run(watch())


def test_the_clock_of_the_board_is_unix_time():
    assert board_module.time.time() - Board().clock() < 60
