"""Who plans: a checkpoint here says what `act` says, and a server has to know the robot."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from molmoact2.client import Client
from molmoact2.control.clock import VirtualClock
from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.control.planners import LocalPlanner
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP
from molmoact2.evaluation.live_planners import Asking, checkpoint_source, server_source
from molmoact2.inference import load_policy
from molmoact2.serving.cards import robot_card
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.types import Committed


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("live") / "checkpoint"
    tiny_checkpoint(folder)
    return str(folder)


@pytest.fixture
def request_again() -> PlanRequest:
    """With a plan that is still under way."""
    observation = fake_observation()
    remaining = np.tile(np.asarray(observation.state, np.float32), (4, 1))
    return PlanRequest(observation=observation, observed_at_s=0.0, sequence=0, remaining=remaining, delay=2)


def only(planner: Planner) -> Plan | Trouble:
    """What a planner without latency says at once."""
    (finished,) = planner.poll()
    planner.close()
    return finished


@pytest.mark.parametrize("is_real_time", [False, True])
def test_a_checkpoint_plans_what_it_would_act(checkpoint: str, request_again: PlanRequest, is_real_time: bool):
    source = checkpoint_source(
        checkpoint, SO101_TABLETOP, VirtualClock(), Asking(is_real_time=is_real_time), is_virtual=True
    )
    policy = load_policy(checkpoint)
    committed = Committed(actions=request_again.remaining, delay=request_again.delay) if is_real_time else None
    horizon = policy.processor.tag(SO101_TABLETOP.tag).action_horizon
    expected = policy.act(
        request_again.observation, session=policy.new_session(5), committed=committed, num_action_steps=horizon
    )
    for _ in range(2):
        planner = source.start(5)
        planner.ask(request_again)
        plan = only(planner)
        assert isinstance(plan, Plan)
        assert np.array_equal(plan.actions, expected.actions), "an episode begins its noise anew"
    assert source.card.action_horizon == horizon == len(expected.actions)


def test_in_a_thread_it_says_the_same(checkpoint: str, request_again: PlanRequest):
    asking, clock = Asking(), VirtualClock()
    ahead = checkpoint_source(checkpoint, SO101_TABLETOP, clock, asking, is_virtual=True).start(1)
    beside = checkpoint_source(checkpoint, SO101_TABLETOP, clock, asking).start(1)
    assert isinstance(beside, LocalPlanner)
    ahead.ask(request_again)
    beside.ask(request_again)
    assert beside.pending is not None
    beside.pending[1].result()
    one, other = only(ahead), only(beside)
    assert isinstance(one, Plan)
    assert isinstance(other, Plan)
    assert np.array_equal(one.actions, other.actions)


def test_an_observation_of_another_robot_is_trouble_for_good(checkpoint: str, request_again: PlanRequest):
    from dataclasses import replace

    planner = checkpoint_source(checkpoint, SO101_TABLETOP, VirtualClock(), Asking(), is_virtual=True).start(0)
    wrong = replace(request_again.observation, state=np.zeros(3, np.float32))
    planner.ask(replace(request_again, observation=wrong))
    trouble = only(planner)
    assert isinstance(trouble, Trouble)
    assert trouble.is_final


def test_who_can_think_thinks_when_asked_to(checkpoint: str, request_again: PlanRequest):
    for asking in (Asking(), Asking(think=True), Asking(think=True, think_ahead=True)):
        planner = checkpoint_source("nano-think", SO101_TABLETOP, VirtualClock(), asking, is_virtual=True).start(5)
        planner.ask(request_again)
        plan = only(planner)
        assert isinstance(plan, Plan)
        assert (plan.depth is not None) == asking.think
    with pytest.raises(ValueError, match="not trained to think"):
        checkpoint_source(checkpoint, SO101_TABLETOP, VirtualClock(), Asking(think=True))
    with pytest.raises(ValueError, match="--think"):
        Asking(think_ahead=True)


def test_a_server_of_another_robot_is_refused(checkpoint: str):
    card = robot_card(load_policy(checkpoint).processor.tag(SO101_TABLETOP.tag))
    client = SimpleNamespace(
        welcome=SimpleNamespace(robots=(card,), model="tiny", can_think=False), robot=lambda _tag: card
    )
    fake = cast(Client, cast(Any, client))
    with pytest.raises(ValueError, match="Serve a checkpoint of this robot"):
        server_source(fake, EMBODIMENTS["yam_dual_molmoact2"], VirtualClock(), Asking())
