"""A server as a policy and as a planner: what the control loop sees of it."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fake_server import OBSERVATION, FakeServer, Peer, good, wait_until

from molmoact2.client import Backoff, Client, RefusedError, RemotePlanner, RemotePolicy
from molmoact2.control.clock import VirtualClock
from molmoact2.control.plan import Plan, Planner, PlanRequest, Trouble
from molmoact2.types import NoActionError, Policy
from molmoact2.wire.messages import Answer, Ask, Refusal, Thought

QUICK = Backoff(first_s=0.01, longest_s=0.05)
NOTHING = np.empty((0, 6), np.float32)


def request(sequence: int = 0, **changes: object) -> PlanRequest:
    asked = PlanRequest(
        observation=OBSERVATION, observed_at_s=5.0 + sequence, sequence=sequence, remaining=NOTHING, delay=0
    )
    return replace(asked, **changes)


def polled(planner: RemotePlanner) -> list[Plan | Trouble]:
    """What comes, once something does."""
    found: list[Plan | Trouble] = []
    wait_until(lambda: found.extend(planner.poll()) or found)
    return found


@pytest.fixture
def client() -> Iterator[Client]:
    with FakeServer(good) as server, Client(server.url, backoff=QUICK) as client:
        yield client


def refusing(code: str, **changes: object) -> FakeServer:
    """Refuses the first question, answers the others."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        ask = await peer.next(Ask)
        await peer.say(Refusal(code=code, message="because", id=ask.id, **changes))  # type: ignore[arg-type]
        await peer.serve_on()

    return FakeServer(script)


def test_a_plan_is_tied_to_when_it_was_asked_for(client: Client):
    clock = VirtualClock()
    clock.sleep_until(7.5)
    planner: Planner = RemotePlanner(client, clock)
    assert planner.is_free
    planner.ask(request(sequence=2))
    assert not planner.is_free
    (plan,) = polled(planner)  # type: ignore[arg-type]
    assert isinstance(plan, Plan)
    assert (plan.sequence, plan.observed_at_s, plan.arrived_at_s, plan.period_s) == (2, 7.0, 7.5, 1 / 15)
    np.testing.assert_array_equal(plan.actions, np.zeros((3, 6)))
    assert dict(plan.timing_s)["total"] == 0.25
    assert planner.is_free
    assert planner.poll() == []
    planner.close()


def test_what_is_asked_names_its_time_on_the_clock_of_the_robot():
    with FakeServer(good) as server, Client(server.url) as client:
        planner = RemotePlanner(client, VirtualClock(), num_steps=3, think=False)
        planner.ask(request(sequence=4, remaining=np.ones((2, 6), np.float32), delay=1))
        polled(planner)
    (ask,) = server.asks()
    assert (ask.observed_at, ask.num_steps, ask.committed) == (9.0, 3, None)


def test_real_time_tells_what_the_robot_does_meanwhile():
    with FakeServer(good) as server, Client(server.url) as client:
        planner = RemotePlanner(client, VirtualClock(), real_time=True)
        planner.ask(request())
        polled(planner)
        planner.ask(request(1, remaining=np.full((4, 6), 2, np.float32), delay=3))
        polled(planner)
    first, second = server.asks()
    assert first.committed is None
    assert second.committed is not None
    np.testing.assert_array_equal(second.committed.actions, np.full((4, 6), 2))
    assert second.committed.delay == 3


def test_what_the_policy_thought_comes_with_the_plan():
    async def script(peer: Peer) -> None:
        await peer.greet()
        thought = Thought(codes=np.arange(3), changed=np.ones(3, np.bool_))
        await peer.answer(await peer.next(Ask), thought=thought)

    with FakeServer(script) as server, Client(server.url) as client:
        planner = RemotePlanner(client, VirtualClock())
        planner.ask(request())
        (plan,) = polled(planner)
    assert isinstance(plan, Plan)
    assert plan.depth is not None
    assert plan.depth.codes.tolist() == [0, 1, 2]


def test_added_latency_is_time_of_the_robot(client: Client):
    clock = VirtualClock()
    planner = RemotePlanner(client, clock, added_latency_s=0.1)
    planner.ask(request())
    pending = planner._pending
    assert pending is not None
    assert pending.arrival.result(timeout=60) == 0.0
    for now in (0.0, 0.05, 0.099):
        clock.sleep_until(now)
        assert planner.poll() == []
        assert not planner.is_free
    clock.sleep_until(0.1)
    (plan,) = planner.poll()
    assert isinstance(plan, Plan)
    assert plan.arrived_at_s == 0.1
    with pytest.raises(ValueError, match="added_latency_s"):
        RemotePlanner(client, clock, added_latency_s=-0.1)


def test_the_newest_request_wins():
    async def script(peer: Peer) -> None:
        await peer.greet()
        first, second = await peer.next(Ask), await peer.next(Ask)
        await peer.answer(second, 2.0)
        await peer.answer(first, 1.0)
        await peer.serve_on()

    with FakeServer(script) as server, Client(server.url) as client:
        planner = RemotePlanner(client, VirtualClock())
        planner.ask(request(0))
        wait_until(server.asks)
        planner.ask(request(1))
        found: list[Plan | Trouble] = []
        wait_until(lambda: found.extend(planner.poll()) or len(found) == 2)
        trouble, plan = found
        assert trouble == Trouble(sequence=0, message="A newer request took its place.")
        assert isinstance(plan, Plan)
        assert (plan.sequence, plan.actions[0, 0]) == (1, 2.0)
        client.act(OBSERVATION)
        assert client.num_dropped == 1


@pytest.mark.parametrize(
    ("code", "is_final"),
    [("held", False), ("superseded", False), ("late", False), ("unfit", True), ("malformed", True)],
)
def test_refusals_are_troubles(code: str, is_final: bool):
    with refusing(code) as server, Client(server.url) as client:
        planner = RemotePlanner(client, VirtualClock())
        planner.ask(request(3))
        (trouble,) = polled(planner)
        assert trouble == Trouble(sequence=3, message=f"because ({code})", is_final=is_final)
        assert planner.is_free


def test_a_busy_server_is_given_time():
    clock = VirtualClock()
    with refusing("busy", retry_after_s=2.0) as server, Client(server.url) as client:
        planner = RemotePlanner(client, clock)
        planner.ask(request())
        assert isinstance(polled(planner)[0], Trouble)
        assert not planner.is_free
        clock.sleep_until(2.0)
        assert planner.is_free


def test_a_lost_connection_is_trouble_and_the_next_plan_comes():
    async def breaks(peer: Peer) -> None:
        await peer.greet()
        await peer.next(Ask)
        peer.socket.transport.abort()

    with FakeServer(breaks, good) as server, Client(server.url, backoff=QUICK) as client:
        planner = RemotePlanner(client, VirtualClock())
        planner.ask(request(0))
        (trouble,) = polled(planner)
        assert isinstance(trouble, Trouble)
        assert (trouble.sequence, trouble.is_final) == (0, False)
        assert "broke" in trouble.message
        planner.ask(request(1))
        assert isinstance(polled(planner)[0], Plan)
    assert len(server.asks()) == 2


def test_an_observation_that_cannot_be_sent_is_final_trouble(client: Client):
    planner = RemotePlanner(client, VirtualClock())
    planner.ask(request(observation=replace(OBSERVATION, images={"front": np.zeros((4, 6, 3))})))
    (trouble,) = polled(planner)
    assert isinstance(trouble, Trouble)
    assert trouble.is_final
    assert "uint8" in trouble.message


def test_closing_gives_up_what_is_on_its_way_and_leaves_the_client(client: Client):
    planner = RemotePlanner(client, VirtualClock())
    planner.ask(request())
    planner.close()
    assert planner.poll() == [Trouble(sequence=0, message="The planner was closed.")]
    assert client.act(OBSERVATION).actions.shape == (3, 6)


def test_a_robot_that_the_server_does_not_know(client: Client):
    with pytest.raises(ValueError, match="Unknown embodiment 'yam'"):
        RemotePlanner(client, VirtualClock(), embodiment="yam")
    with pytest.raises(ValueError, match="Unknown embodiment 'yam'"):
        RemotePolicy(client, embodiment="yam")


def test_a_server_is_a_policy(client: Client):
    policy: Policy = RemotePolicy(client, embodiment="so101_tabletop")
    assert policy.act(OBSERVATION).actions.shape == (3, 6)


def test_a_policy_keeps_its_options_and_begins_episodes():
    with FakeServer(good) as server, Client(server.url) as client:
        policy = RemotePolicy(client, num_steps=2, num_action_steps=3)
        policy.reset(seed=1)
        policy.act(OBSERVATION)
    (ask,) = server.asks()
    assert (ask.num_steps, ask.num_action_steps) == (2, 3)


def test_a_policy_whose_robot_is_held_has_no_action():
    with refusing("held") as server, Client(server.url) as client, pytest.raises(NoActionError, match="because"):
        RemotePolicy(client).act(OBSERVATION)
    with refusing("internal") as server, Client(server.url) as client, pytest.raises(RefusedError, match="because"):
        RemotePolicy(client).act(OBSERVATION)


def test_answers_are_checked_before_they_are_plans():
    """A chunk of another robot's width never becomes a plan."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        ask = await peer.next(Ask)
        wrong = Answer(id=ask.id, observed_at=ask.observed_at, actions=np.zeros((3, 14), np.float32), seed=0, timing={})
        await peer.say(wrong)
        await peer.socket.wait_closed()

    with FakeServer(script, good) as server, Client(server.url, backoff=QUICK) as client:
        planner = RemotePlanner(client, VirtualClock())
        planner.ask(request())
        assert isinstance(polled(planner)[0], Trouble)
