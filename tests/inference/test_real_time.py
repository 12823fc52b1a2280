"""Real-time chunking through a policy: what is asked, what is refused, and that plans go on from what is committed."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golden_cases import GOLDEN, cases, policy
from molmoact2 import Observation, load_policy
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.inference.real_time import RealTime, checked_rows
from molmoact2.processing import TagStats
from molmoact2.testing import fake_observation, made_up_statistics
from molmoact2.types import Committed

CASE = cases("continuous")[0]
OBSERVATION, TAG = CASE.observation(), CASE.tag
HORIZON, WIDTH = 6, 5
RULES = ("guided", "simplified")


def act(**options):
    return policy("tiny").act(OBSERVATION, TAG, **{"seed": 0, "num_action_steps": HORIZON, **options}).actions


@lru_cache
def present_plan() -> np.ndarray:
    """Another plan of the same policy."""
    return act(seed=1)


def committed(rows: int = 4, delay: int = 2) -> Committed:
    return Committed(actions=present_plan()[:rows], delay=delay)


@pytest.mark.parametrize(
    ("settings", "delay", "expected"),
    [
        (RealTime(schedule="linear"), 2, [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0]),
        (RealTime(schedule="linear"), 0, [6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0, 0]),
        (RealTime(schedule="linear"), 6, [1, 1, 1, 1, 1, 1, 0, 0]),
        (RealTime(schedule="linear", execution_horizon=4), 2, [1, 1, 2 / 3, 1 / 3, 0, 0, 0, 0]),
        (RealTime(schedule="linear", execution_horizon=4), 5, [1, 1, 1, 1, 0, 0, 0, 0]),
        (RealTime(schedule="linear", execution_horizon=99), 2, [1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0]),
        (RealTime(schedule="exponential"), 2, [1, 1, 0.5705890, 0.2870724, 0.1144922, 0.0257703, 0, 0]),
        (RealTime(schedule="exponential", execution_horizon=3), 2, [1, 1, 0.1887703, 0, 0, 0, 0, 0]),
        (RealTime(schedule="ones"), 2, [1, 1, 1, 1, 1, 1, 0, 0]),
        (RealTime(schedule="ones", execution_horizon=4), 2, [1, 1, 1, 1, 0, 0, 0, 0]),
        (RealTime(schedule="zeros"), 2, [1, 1, 0, 0, 0, 0, 0, 0]),
        (RealTime(schedule="zeros"), 0, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_weights_by_hand(settings: RealTime, delay: int, expected: list[float]):
    weights = settings.weights(horizon=8, rows=6, delay=delay)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@given(horizon=st.integers(1, 40), data=st.data())
def test_weights_are_those_of_the_paper(horizon: int, data: st.DataObject):
    """c = (end - i) / (end - delay + 1), and c (e^c - 1) / (e - 1), for row i between."""
    rows = data.draw(st.integers(0, horizon))
    delay = data.draw(st.integers(0, rows))
    weights = RealTime(schedule="exponential").weights(horizon=horizon, rows=rows, delay=delay)
    assert weights.shape == (horizon,)
    for row, weight in enumerate(weights):
        c = (rows - row) / (rows - delay + 1)
        expected = 1.0 if row < delay else 0.0 if row >= rows else c * (np.exp(c) - 1) / (np.e - 1)
        assert weight == pytest.approx(expected, abs=1e-6)
    assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "guide"}, "Unknown rule 'guide'"),
        ({"schedule": "exp"}, "Unknown schedule 'exp'"),
        ({"execution_horizon": 0}, "execution_horizon must be at least 1 row, got 0"),
        ({"max_guidance_weight": 0.0}, "max_guidance_weight must be above 0"),
        ({"max_guidance_weight": float("inf")}, "finite, got inf"),
        ({"max_guidance_weight": float("nan")}, "finite, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RealTime(**options)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"actions": np.zeros((2, 4), np.float32)}, r"at most 6 rows of 5 numbers, got shape \[2, 4\]"),
        ({"actions": np.zeros(5, np.float32)}, r"got shape \[5\]"),
        ({"actions": np.zeros((7, 5), np.float32)}, r"at most 6 rows of 5 numbers, got shape \[7, 5\]"),
        ({"actions": np.full((3, 5), np.nan, np.float32)}, "finite"),
        ({"actions": np.full((3, 5), np.inf, np.float32)}, "finite"),
        ({"actions": np.full((3, 5), 1e4, np.float32)}, "row 0: .* is 10000, and the nearest that is planned for 'toy"),
        ({"delay": 4}, "delay counts rows of the committed actions: it must be 0 to 3, got 4"),
        ({"delay": -1}, "0 to 3, got -1"),
        ({"delay": 1.5}, "0 to 3, got 1.5"),
    ],
)
def test_plans_that_are_none_are_refused_before_anything_is_computed(plan: dict, message: str, monkeypatch):
    wrong = replace(committed(3), **plan)
    monkeypatch.setattr(policy("tiny").model, "image_features", None)
    with pytest.raises(ValueError, match=message):
        act(committed=wrong)


def test_spoken_actions_cannot_begin_as_committed():
    with pytest.raises(ValueError, match="committed is for continuous mode"):
        act(mode="discrete", committed=committed())


@pytest.mark.parametrize(
    ("plans", "found"),
    [
        (committed, "got 1 of Committed"),
        (lambda: [committed()], "got 1 of Committed"),
        (lambda: [committed(), None, None], "got 3 of Committed, NoneType"),
        (lambda: np.zeros((2, WIDTH)), "got 2 of ndarray"),
    ],
)
def test_a_list_needs_a_plan_or_none_for_each(plans, found: str):
    with pytest.raises(ValueError, match=f"one or None for each: 2 here, {found}"):
        policy("tiny").act([OBSERVATION, OBSERVATION], TAG, committed=plans())


def test_rows_that_rounding_moved_are_a_plan_and_others_are_named():
    stats = TagStats.read("arm", made_up_statistics(SO101_TABLETOP), "q01_q99")
    low, high = (stats.action_scaling.restore(np.full((1, 6), end, np.float32)) for end in (-1, 1))
    reach = high - low
    for rows in (low - 5e-4 * reach, high + 5e-4 * reach, (low + high) / 2):
        checked_rows(Committed(actions=rows, delay=0), stats)
    for dimension, name in enumerate(SO101_TABLETOP.action_names):
        rows = np.repeat(low, 3, axis=0)
        rows[1, dimension] += 1.01 * reach[0, dimension]
        with pytest.raises(ValueError, match=f"row 1: {name} is"):
            checked_rows(Committed(actions=rows, delay=0), stats)


def test_nothing_decided_is_the_plain_flow_bit_by_bit():
    nothing = [
        {"committed": None},
        {"committed": Committed(actions=np.zeros((0, WIDTH), np.float32), delay=0)},
        {"committed": committed(3, 0), "real_time": RealTime(schedule="zeros")},
    ]
    for options in nothing:
        np.testing.assert_array_equal(act(**options), act())


@pytest.mark.parametrize("rule", RULES)
def test_plain_calls_before_and_after_are_what_they_were(rule):
    """The times of the flow are kept from call to call; whoever makes them first, all can use them."""
    options = {"committed": committed(), "real_time": RealTime(rule=rule)}
    expected, pulled = act(num_steps=5), act(num_steps=5, **options)
    for order in ([{}, options, {}], [options, {}, options]):
        fresh = load_policy(GOLDEN / "tiny")
        for one in order:
            chunk = fresh.act(OBSERVATION, TAG, seed=0, num_steps=5, num_action_steps=HORIZON, **one)
            np.testing.assert_array_equal(chunk.actions, pulled if one else expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_caller_in_inference_mode_is_served_too(rule):
    options = {"committed": committed(), "real_time": RealTime(rule=rule)}
    with torch.inference_mode():
        inside = act(**options)
    np.testing.assert_array_equal(inside, act(**options))


@pytest.mark.parametrize("rule", RULES)
def test_a_random_network_is_bent_to_what_is_committed(rule):
    far = np.abs(act()[:2] - present_plan()[:2]).mean()
    near = np.abs(act(committed=committed(), real_time=RealTime(rule=rule))[:2] - present_plan()[:2]).mean()
    assert near < 0.25 * far


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_with_and_without_plans_is_its_observations_one_by_one(rule):
    tiny, settings = policy("tiny"), RealTime(rule=rule)
    observations = [OBSERVATION, replace(OBSERVATION, instruction="fold the long blue towel"), OBSERVATION]
    plans = [committed(), None, committed(6, 1)]
    noise = np.random.default_rng(0).normal(size=(3, HORIZON, 8)).astype(np.float32)
    together = tiny.act(observations, TAG, noise=noise, committed=plans, real_time=settings)
    for one, plan, its_noise, chunk in zip(observations, plans, noise, together, strict=True):
        alone = tiny.act(one, TAG, noise=its_noise, committed=plan, real_time=settings)
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_follows_too(rule):
    exact, rough = (load_policy("nano-so101", dtype=dtype) for dtype in ("float32", "bfloat16"))
    observation = fake_observation(seed=0)
    plan = Committed(actions=exact.act(observation, seed=1, num_action_steps=16).actions, delay=4)
    chunks = [
        one.act(observation, seed=0, num_action_steps=16, committed=plan, real_time=RealTime(rule=rule)).actions
        for one in (exact, rough)
    ]
    reach = exact.processor.tag(None).action_scaling.width
    assert chunks[1].dtype == np.float32
    assert (np.abs(chunks[1] - chunks[0]) / reach).mean() < 0.02


@pytest.mark.parametrize("think_ahead", [False, True])
def test_thinking_policies_follow_too(think_ahead: bool):
    case = cases("depth_continuous")[0]
    options = {"think": True, "think_ahead": think_ahead, "num_action_steps": HORIZON}
    other = case.policy.act(case.observation(), case.tag, seed=1, num_action_steps=HORIZON).actions
    plan, sessions = Committed(actions=other[:4], delay=2), [case.policy.new_session(0) for _ in range(3)]
    alone = case.policy.act(case.observation(), case.tag, session=sessions[0], committed=plan, **options)
    plain = case.policy.act(case.observation(), case.tag, session=case.policy.new_session(0), **options)
    together = case.policy.act([case.observation()] * 2, case.tag, session=sessions[1:], committed=[None, plan],
                               noise=None, **options)  # fmt: skip
    np.testing.assert_array_equal(alone.depth.codes, plain.depth.codes)
    assert np.abs(alone.actions[:2] - other[:2]).mean() < np.abs(plain.actions[:2] - other[:2]).mean()
    np.testing.assert_allclose(together[0].actions, plain.actions, atol=1e-4)
    np.testing.assert_allclose(together[1].actions, alone.actions, atol=1e-4)


@lru_cache
def simulated() -> tuple[tuple[Observation, np.ndarray, int], ...]:
    """Observations of the simulated arm in the middle of plans, with the rows that are left of each."""
    envs = pytest.importorskip("molmoact2.envs", reason="the extra sim is not installed")
    environment, nano, seen = envs.make("so101"), load_policy("nano-so101"), []
    for seed, task in enumerate(environment.tasks * 6):
        environment.reset(seed=3_000_000 + seed, task=task)
        plan = nano.act(environment.observe(), seed=seed, num_action_steps=16).actions
        for action in plan[:6]:
            environment.step(action)
        seen.append((environment.observe(), plan[6:], 100 + seed))
    environment.close()
    return tuple(seen)


@pytest.mark.parametrize("rule", RULES)
def test_the_simulated_arm_goes_on_where_it_was_going(rule):
    """Of a plan of 16 rows 6 are executed and 4 more will be; the seam is where the new plan takes over."""
    nano, delay = load_policy("nano-so101"), 4
    misses, seams = [], []
    for observation, left, seed in simulated():
        plan = Committed(actions=left, delay=delay)
        chunks = [
            nano.act(observation, seed=seed, num_action_steps=16, **options).actions
            for options in ({}, {"committed": plan, "real_time": RealTime(rule=rule)})
        ]
        misses.append([np.abs(chunk[:delay] - left[:delay]).mean() for chunk in chunks])
        seams.append([np.abs(chunk[delay] - left[delay - 1]).mean() for chunk in chunks])
    (plain_miss, miss), (plain_seam, seam) = np.mean(misses, axis=0), np.mean(seams, axis=0)
    assert miss < {"guided": 0.8, "simplified": 0.15}[rule] * plain_miss
    assert seam < 0.85 * plain_seam
