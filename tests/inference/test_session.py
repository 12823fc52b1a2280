"""What an episode remembers: its depth map, how long it may be kept, and what is said while the robot moves."""

from dataclasses import replace

import numpy as np
import pytest

from golden_cases import cases
from molmoact2.inference.session import DepthMemory, DepthRefresh, Session
from molmoact2.types import ActionChunk, Observation

CASE = cases("depth_continuous")[0]
POLICY, TAG, CELLS = CASE.policy, CASE.tag, 16
NOISE = CASE["noise"][0]


def moved(observation: Observation, columns: slice, value: int) -> Observation:
    """The observation with a stripe of its main image painted over."""
    main, *others = observation.images
    main = main.copy()
    main[:, columns] = (value, 255 - value, value // 2)
    return replace(observation, images=[main, *others])


def episode() -> list[Observation]:
    still = CASE.observation()
    width = still.images[0].shape[1]
    return [
        still,
        moved(still, slice(0, width // 2), 200),
        moved(still, slice(width // 4, width), 30),
        still,
        still,
    ]


def act(observation: Observation, session: Session, **options: object) -> ActionChunk:
    return POLICY.act(observation, TAG, session=session, think=True, noise=NOISE, **options)


def test_thinking_ahead_acts_on_the_map_of_the_call_before():
    """The slow twin says the map of every observation in its call, and acts on the one before."""
    ahead, now = POLICY.new_session(), POLICY.new_session()
    last = None
    for observation in episode():
        chunk, twin = act(observation, ahead, think_ahead=True), act(observation, now)
        np.testing.assert_array_equal(chunk.depth.codes, (last or twin).depth.codes)
        assert chunk.depth.age == (last is not None)
        assert chunk.depth.changed.any() == (last is None)
        assert ahead.depth is not None
        np.testing.assert_array_equal(ahead.depth.codes, twin.depth.codes)
        last = twin


def test_what_a_policy_does_ahead_is_what_it_would_do_with_that_map():
    first, second, *_ = episode()
    ahead, frozen = POLICY.new_session(), POLICY.new_session()
    act(first, ahead, think_ahead=True)
    remembered = ahead.depth
    assert remembered is not None
    frozen.depth = DepthMemory(image=second.images[0], codes=remembered.codes)
    np.testing.assert_array_equal(
        act(second, ahead, think_ahead=True).actions, act(second, frozen).actions
    )  # fmt: skip


def test_robots_of_a_batch_think_ahead_each_for_itself():
    first, second, third, *_ = episode()
    pair, alone = [POLICY.new_session(1), POLICY.new_session(2)], [POLICY.new_session(1), POLICY.new_session(2)]
    act(first, pair[0], think_ahead=True), act(first, alone[0], think_ahead=True)
    options = {"think": True, "think_ahead": True}
    together = POLICY.act([second, third], TAG, session=pair, noise=np.stack([NOISE, NOISE]), **options)
    apart = [act(o, s, think_ahead=True) for o, s in zip((second, third), alone, strict=True)]
    for chunk, twin, session, other in zip(together, apart, pair, alone, strict=True):
        np.testing.assert_array_equal(chunk.depth.codes, twin.depth.codes)
        np.testing.assert_allclose(chunk.actions, twin.actions, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(session.depth.codes, other.depth.codes)
    assert [chunk.depth.age for chunk in together] == [1, 0]


def test_what_goes_wrong_in_the_background_is_said_in_the_next_call(monkeypatch: pytest.MonkeyPatch):
    from molmoact2.inference.depth_map import DepthMaps

    session, settle = POLICY.new_session(), DepthMaps.settle
    act(episode()[0], session, think_ahead=True)
    assert session.depth is not None
    monkeypatch.setattr(
        DepthMaps, "settle", lambda maps, changed: settle(maps, changed) if not changed.any() else 1 / 0
    )
    act(episode()[1], session, think_ahead=True)
    with pytest.raises(ZeroDivisionError):
        act(episode()[2], session, think_ahead=True)


def test_a_call_that_fails_leaves_its_episodes_as_they_were(monkeypatch: pytest.MonkeyPatch):
    first, second, *_ = episode()
    sessions, twins = ([POLICY.new_session(seed) for seed in (1, 2)] for _ in range(2))
    for some in (sessions, twins):
        POLICY.act([first, first], TAG, session=some, think=True)

    def broken(*_args: object) -> None:
        raise ValueError("The last stage fails.")

    with monkeypatch.context() as patch:
        patch.setattr("molmoact2.inference.thinking.Thinking.thoughts", broken)
        with pytest.raises(ValueError, match="last stage"):
            POLICY.act([second, second], TAG, session=sessions, think=True)
        patch.undo()
        patch.setattr("molmoact2.inference.call.Call.decode", broken)
        with pytest.raises(ValueError, match="last stage"):
            POLICY.act([second, second], TAG, session=sessions, think=True)
    again, wanted = (POLICY.act([second, second], TAG, session=some, think=True) for some in (sessions, twins))
    for chunk, twin in zip(again, wanted, strict=True):
        np.testing.assert_array_equal(chunk.actions, twin.actions)
        np.testing.assert_array_equal(chunk.depth.codes, twin.depth.codes)


@pytest.mark.parametrize("options", [{"think": False}, {"session": None}, {"mode": "discrete", "noise": None}], ids=str)
def test_thinking_ahead_needs_a_thought_and_an_episode(options: dict):
    given = {"think": True, "session": POLICY.new_session(), "noise": NOISE} | options
    with pytest.raises(ValueError, match="think_ahead needs think=True, a session"):
        POLICY.act(CASE.observation(), TAG, think_ahead=True, **given)


def test_a_map_is_said_anew_every_so_many_calls():
    session = POLICY.new_session(depth_refresh=DepthRefresh(every=3))
    renewed = [act(CASE.observation(), session).depth.changed.all() for _ in range(8)]
    assert renewed == [True, False, False, True, False, False, True, False]


def test_a_map_is_said_anew_when_the_camera_moved():
    still = CASE.observation()
    width = still.images[0].shape[1]
    little, much = moved(still, slice(0, width // 4), 0), moved(still, slice(0, width), 0)
    for share, observation, is_whole in ((0.9, much, True), (0.5, little, False), (0.1, little, True)):
        session = POLICY.new_session(depth_refresh=DepthRefresh(changed_fraction=share))
        act(still, session)
        assert act(observation, session).depth.changed.all() == is_whole


def test_by_default_a_map_is_kept_for_ever():
    session = POLICY.new_session()
    assert [act(CASE.observation(), session).depth.changed.any() for _ in range(4)] == [True, False, False, False]
    assert session.depth is not None
    assert session.depth.num_kept == 3


@pytest.mark.parametrize("wrong", [{"every": 0}, {"changed_fraction": 1.0}, {"changed_fraction": -0.1}], ids=str)
def test_bounds_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DepthRefresh(**wrong)


def test_an_episode_keeps_the_size_of_its_camera():
    session, observation = POLICY.new_session(), CASE.observation()
    act(observation, session)
    smaller = replace(observation, images=[observation.images[0][::2], *observation.images[1:]])
    with pytest.raises(ValueError, match="An episode keeps its checkpoint, its main camera and its size"):
        act(smaller, session)


def test_an_episode_keeps_its_checkpoint():
    session, observation = POLICY.new_session(), CASE.observation()
    session.depth = DepthMemory(image=observation.images[0], codes=np.zeros(100, np.int64))
    with pytest.raises(ValueError, match="a depth map of 100 cells"):
        act(observation, session)


def test_codes_out_of_range_are_refused():
    session, observation = POLICY.new_session(), CASE.observation()
    session.depth = DepthMemory(image=observation.images[0], codes=np.full(CELLS, 99))
    with pytest.raises(ValueError, match="A depth code stands for"):
        act(observation, session)


def test_a_new_episode_forgets():
    session = POLICY.new_session(seed=1)
    first = POLICY.act(CASE.observation(), TAG, session=session, think=True)
    session.reset(1)
    again = POLICY.act(CASE.observation(), TAG, session=session, think=True)
    assert again.depth.changed.all()
    np.testing.assert_array_equal(first.actions, again.actions)


def test_a_plain_checkpoint_cannot_think():
    plain = cases("continuous")[0]
    with pytest.raises(ValueError, match=r"it cannot think\. Use think=False"):
        plain.policy.act(plain.observation(), plain.tag, think=True)
