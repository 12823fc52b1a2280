"""Idle frames and the spans between them, against the plainest way to find them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data.curation.idle import IdleRule, Span, idle_frames, moving_spans, runs, speeds
from molmoact2.data.quality.material import Material, make_vector
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP

RULE = IdleRule(shortest_pause_s=0.3, shortest_span_s=0.5)
FPS = 10


def plain_spans(is_idle, starts):
    """Episode by episode, frame by frame."""
    spans = []
    for episode, part in enumerate(np.split(is_idle, starts[1:])):
        moving = [True] * len(part)
        begin = 0
        for frame in range(len(part) + 1):
            if frame == len(part) or not part[frame]:
                if frame - begin >= 3:
                    moving[begin:frame] = [False] * (frame - begin)
                begin = frame + 1
        begin = 0
        for frame in range(len(part) + 1):
            if frame == len(part) or not moving[frame]:
                if frame - begin >= 5:
                    spans.append(Span(episode, begin, frame - 1))
                begin = frame + 1
    return spans


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=5))
def test_spans_are_those_of_the_plain_way(episodes):
    is_idle = np.array([idle for episode in episodes for idle in episode])
    starts = np.cumsum([0, *map(len, episodes)])[:-1]
    assert moving_spans(is_idle, starts, fps=FPS, rule=RULE) == plain_spans(is_idle, starts)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=5))
def test_runs_tile_the_frames(episodes):
    values = np.array([value for episode in episodes for value in episode])
    starts = np.cumsum([0, *map(len, episodes)])[:-1]
    first, length, episode = runs(values, starts)
    assert np.array_equal(np.append(first, len(values))[1:], first + length)
    assert np.array_equal(np.repeat(values[first], length), values)
    assert np.array_equal(np.bincount(episode, length, len(starts)), [len(part) for part in episodes])


def test_speed_of_a_steady_motion_is_its_speed():
    values = np.concatenate([np.arange(20) * 0.3, 100 - np.arange(10) * 0.5])[:, None]
    speed = speeds(values, np.array([0, 20]), fps=FPS, window_s=0.4)
    np.testing.assert_allclose(speed[:20], 3.0)
    np.testing.assert_allclose(speed[20:], 5.0)
    assert speeds(values[:1], np.array([0]), fps=FPS, window_s=0.4).tolist() == [[0.0]]


def arm(state, action, embodiment=SO101_TABLETOP):
    names = embodiment.action_names
    return Material(
        source="arm",
        fps=15.0,
        state=make_vector("state", state, names, embodiment),
        action=make_vector("action", action, names, embodiment),
        timestamps=np.arange(len(state)) / 15,
        starts=np.array([0]),
        instructions=("go",),
        embodiment=embodiment,
    )


def still(width=6):
    return np.zeros((60, width)), np.zeros((60, width))


@pytest.mark.parametrize(("joint", "kind"), [(0, 0), (5, 0), (0, 1), (5, 1)])
def test_any_dimension_of_state_or_action_makes_it_move(joint, kind):
    arrays = still()
    arrays[kind][20:40, joint] = np.linspace(0, 20, 20)
    arrays[kind][40:, joint] = 20
    is_idle = idle_frames(arm(*arrays), IdleRule())
    assert not is_idle[20:40].any()
    assert is_idle[:18].all()
    assert is_idle[42:].all()


def test_the_last_digit_of_an_encoder_is_no_motion():
    state, action = still()
    state[:, 0] = 0.088 * (np.arange(60) % 2)
    assert idle_frames(arm(state, action), IdleRule()).all()


def test_a_name_wins_over_a_unit():
    state, action = still()
    state[:, 0] = np.arange(60) / 15 * 5
    assert not idle_frames(arm(state, action), IdleRule()).any()
    assert idle_frames(
        arm(state, action), IdleRule(slowest_per_s={"deg": 2.0, "percent": 4.0, "shoulder_pan": 6.0})
    ).all()


def test_in_delta_control_an_action_is_motion_itself():
    robot = EMBODIMENTS["widowx_bridge"]
    state, action = still(7)
    action[20:40, 0] = 0.01
    action[:, 6] = 1.0
    is_idle = idle_frames(arm(state, action, robot), IdleRule())
    assert not is_idle[20:40].any()
    assert is_idle[:17].all()


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="must be 0 or more"):
        IdleRule(window_s=-1)
    with pytest.raises(ValueError, match="must be 0 or more"):
        IdleRule(slowest_per_s={"deg": float("nan")})
