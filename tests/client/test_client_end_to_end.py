"""The client and the real server, over a real socket, around a tiny checkpoint."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import numpy as np
import pytest
from fake_server import wait_until

from molmoact2.client import (
    AsyncClient,
    Backoff,
    Client,
    ConnectionLostError,
    RefusedError,
    RemotePlanner,
    RemotePolicy,
    WrongQuestionError,
)
from molmoact2.control.clock import WallClock
from molmoact2.control.plan import Plan, PlanRequest
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.serving.app import build_app
from molmoact2.serving.engine import Engine
from molmoact2.serving.operator import EVERYONE, Command
from molmoact2.serving.run import PolicyServer
from molmoact2.serving.settings import ServerSettings
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.wire.messages import Control, Telemetry

QUICK = Backoff(first_s=0.01, longest_s=0.05)
TOKEN = "a token of many letters"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def command(self, command: Command) -> None:
        """What an operator does at the dashboard."""
        self.loop.call_soon_threadsafe(self.engine.operator.command, EVERYONE, command)


@contextmanager
def running(policy: MolmoAct2Policy, port: int = 0) -> Iterator[Running]:
    settings = ServerSettings(port=port, token=TOKEN)
    engine, loop = Engine(policy), asyncio.new_event_loop()
    server = PolicyServer(build_app(engine, settings, model="tiny"), engine, settings)
    thread = Thread(target=loop.run_until_complete, args=(server.serve(),))
    thread.start()
    try:
        wait_until(lambda: (server.started and engine.state == "ready") or not thread.is_alive())
        yield Running(engine=engine, loop=loop, port=server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> MolmoAct2Policy:
    return load_policy(tiny_checkpoint(tmp_path_factory.mktemp("tiny")), dtype="float32")


@pytest.fixture(scope="module")
def server(policy: MolmoAct2Policy) -> Iterator[Running]:
    with running(policy) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url, token=TOKEN, backoff=QUICK) as client:
        yield client


def test_actions_are_those_of_the_policy_itself(policy: MolmoAct2Policy, client: Client):
    for seed in range(3):
        observation = fake_observation(seed=seed)
        chunk = client.act(observation, seed=seed, num_steps=3)
        np.testing.assert_array_equal(chunk.actions, policy.act(observation, seed=seed, num_steps=3).actions)
        assert {"queue", "inference", "total", "round_trip"} <= chunk.timing.keys()


def test_an_episode_is_repeated_by_its_seed(client: Client):
    policy, observation = RemotePolicy(client), fake_observation()

    def episode() -> list[np.ndarray]:
        policy.reset(seed=7)
        return [policy.act(observation).actions for _ in range(2)]

    first, again = episode(), episode()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])


def test_asynchronously_and_as_jpeg(server: Running):
    async def ask() -> tuple[int, ...]:
        async with AsyncClient(server.url, token=TOKEN, jpeg_quality=90) as client:
            return (await client.act(fake_observation())).actions.shape

    card_shape = asyncio.run(ask())
    assert card_shape[1] == 6


def test_a_wrong_token_is_refused(server: Running):
    with Client(server.url, token="wrong") as client, pytest.raises(RefusedError) as caught:
        client.act(fake_observation())
    assert caught.value.code == "unauthorized"


def test_a_question_that_does_not_fit_is_refused_and_the_next_is_answered(client: Client):
    observation = fake_observation()
    with pytest.raises(WrongQuestionError, match="not trained to think") as caught:
        client.act(observation, think=True)
    assert caught.value.code == "unfit"
    assert len(client.act(observation).actions)
    assert client.num_connections == 1


def test_an_operator_holds_the_robot(server: Running, client: Client):
    policy = RemotePolicy(client)
    server.command("hold")
    wished: list[Control] = []
    wait_until(lambda: wished.extend(client.wishes()) or wished)
    assert wished[-1].command == "hold"
    with pytest.raises(RefusedError) as caught:
        client.act(fake_observation())
    assert caught.value.code == "held"
    server.command("resume")
    wait_until(lambda: client.wishes())
    assert len(policy.act(fake_observation()).actions)


def test_plans_arrive_beside_the_control_loop(client: Client):
    clock = WallClock()
    planner = RemotePlanner(client, clock)
    for sequence in range(3):
        observed_at_s = clock.now()
        planner.ask(
            PlanRequest(
                observation=fake_observation(seed=sequence),
                observed_at_s=observed_at_s,
                sequence=sequence,
                remaining=np.empty((0, 6), np.float32),
                delay=0,
            )
        )
        found: list[object] = []
        wait_until(lambda found=found: found.extend(planner.poll()) or found)
        (plan,) = found
        assert isinstance(plan, Plan), plan
        assert (plan.sequence, plan.observed_at_s) == (sequence, observed_at_s)
        assert plan.arrived_at_s >= observed_at_s
    client.report(
        Telemetry(
            time=clock.now(),
            mode="full",
            executed=plan.actions[:2],
            measured=plan.actions[:2],
            times=np.array([0.0, 1 / 15]),
        )
    )
    assert len(client.act(fake_observation()).actions)
    assert client.num_unsent == 0


def test_a_server_that_comes_back_is_asked_again(policy: MolmoAct2Policy):
    with running(policy) as first:
        client = Client(first.url, token=TOKEN, backoff=QUICK)
        client.act(fake_observation())
    with client:
        wait_until(lambda: not client.is_connected)
        with pytest.raises(ConnectionLostError):
            client.act(fake_observation(), timeout_s=0.05)
        with running(policy, first.port):
            assert len(client.act(fake_observation()).actions)
        assert client.num_connections == 2
