"""A client and its server: what is asked, what comes back, and everything that can go wrong between them."""

import asyncio
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from fake_server import CARD, OBSERVATION, WELCOME, FakeServer, Peer, Script, good, wait_until
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.client import (
    AsyncClient,
    Backoff,
    Client,
    ConnectionLostError,
    LateError,
    RefusedError,
)
from molmoact2.types import Committed
from molmoact2.wire.limits import Code, Limits, WireError
from molmoact2.wire.messages import Ask, Control, Hello, Refusal, Reset, Telemetry, Thought

QUICK = Backoff(first_s=0.01, longest_s=0.05)
MOVED = Telemetry(
    time=1.0,
    mode="full",
    executed=np.zeros((2, 6), np.float32),
    measured=np.zeros((2, 6), np.float32),
    times=np.array([0.5, 0.75]),
)


def client_of(server: FakeServer, **options: object) -> Client:
    return Client(server.url, **{"backoff": QUICK, **options})  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(good) as server:
        yield server


def test_handshake(server: FakeServer):
    with client_of(server, token="secret") as client:
        assert client.welcome.model == "tiny"
        assert client.robot() == CARD
        assert client.is_connected
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert server.paths == ["/v1"]
    assert server.received == [Hello(client="molmoact2.client")]


def test_without_a_token_none_is_sent(server: FakeServer):
    with client_of(server) as client:
        assert client.welcome
    assert "Authorization" not in server.headers[0]


def test_what_is_asked_arrives_and_what_is_answered_comes_back():
    thought = Thought(codes=np.arange(4), changed=np.array([True, False, True, False]), age=1)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(await peer.next(Ask), 1.5, thought=thought)

    with FakeServer(script) as server, client_of(server) as client:
        committed = Committed(actions=np.ones((2, 6), np.float32), delay=1)
        chunk = client.act(OBSERVATION, think=True, seed=3, num_steps=4, observed_at=12.5, committed=committed)
    (ask,) = server.asks()
    assert (ask.id, ask.embodiment, ask.think, ask.seed, ask.num_steps, ask.observed_at) == (
        *(0, "so101_tabletop", True),
        *(3, 4, 12.5),
    )
    assert ask.deadline_s is not None
    assert 0 < ask.deadline_s <= 10
    assert ask.committed is not None
    assert ask.committed.delay == 1
    assert set(ask.observation.images) == {"front", "wrist"}
    np.testing.assert_array_equal(ask.observation.state, OBSERVATION.state)
    np.testing.assert_array_equal(chunk.actions, np.full((3, 6), 1.5))
    assert chunk.actions.flags.writeable
    assert chunk.depth is not None
    np.testing.assert_array_equal(chunk.depth.changed, thought.changed)
    assert chunk.depth.age == 1
    assert chunk.timing["total"] == 0.25
    assert 0 < chunk.timing["round_trip"] < 10


@pytest.mark.parametrize("side", [8, 360], ids=["short", "in pieces"])
def test_images_of_any_size_arrive_whole(server: FakeServer, side: int):
    picture = np.random.default_rng(side).integers(0, 256, (side, 640, 3), np.uint8)
    images = {"front": picture, "wrist": picture[::-1]}
    with client_of(server) as client:
        client.act(replace(OBSERVATION, images=images))
    (ask,) = server.asks()
    for name, image in images.items():
        np.testing.assert_array_equal(ask.observation.images[name], image)


def test_numbers_of_questions_count_up(server: FakeServer):
    with client_of(server) as client:
        assert [client.act(OBSERVATION).actions[0, 0] for _ in range(3)] == [0, 1, 2]


def test_images_in_order_get_the_names_of_the_cameras(server: FakeServer):
    with client_of(server) as client:
        client.act(replace(OBSERVATION, images=list(OBSERVATION.images.values())))  # type: ignore[union-attr]
        with pytest.raises(WireError, match="must be 2, for front, wrist, got 1"):
            client.act(replace(OBSERVATION, images=[np.zeros((4, 6, 3), np.uint8)]))
    assert (server.asks()[0].observation.images["front"] == 7).all()  # type: ignore[call-overload]


def test_images_are_sent_as_jpeg_on_request(server: FakeServer):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with client_of(server, jpeg_quality=50) as client:
        client.act(replace(OBSERVATION, images={"front": noise, "wrist": noise}))
    found = server.asks()[0].observation.images["front"]  # type: ignore[call-overload]
    assert found.shape == noise.shape
    assert not np.array_equal(found, noise)


@pytest.mark.parametrize(
    ("observation", "complaint"),
    [
        (replace(OBSERVATION, state=np.full(6, np.nan)), "finite"),
        (replace(OBSERVATION, images={"front": np.zeros((4, 6, 3))}), "uint8"),
        (replace(OBSERVATION, images={"front": np.zeros((11, 11, 3), np.uint8)}), "100 pixels"),
        (replace(OBSERVATION, instruction=""), "instruction"),
    ],
)
def test_what_the_server_would_refuse_is_not_sent(observation: object, complaint: str):
    async def script(peer: Peer) -> None:
        await peer.greet(limits=Limits(image_pixels=100))
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        with pytest.raises(WireError, match=complaint):
            client.act(observation)  # type: ignore[arg-type]
        client.act(OBSERVATION)
    assert len(server.asks()) == 1


def test_an_unknown_robot_is_not_asked_about(server: FakeServer):
    with client_of(server) as client, pytest.raises(ValueError, match="Did you mean 'so101_tabletop'"):
        client.act(OBSERVATION, embodiment="so101_tableto")


def test_one_of_several_robots_has_to_be_named():
    async def script(peer: Peer) -> None:
        await peer.greet(robots=(CARD, replace(CARD, tag="other")))
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="say which embodiment"):
            client.act(OBSERVATION)
        client.act(OBSERVATION, embodiment="other")
    assert server.asks()[0].embodiment == "other"


@pytest.mark.parametrize("code", get_args(Code))
def test_refusals(code: Code):
    async def script(peer: Peer) -> None:
        await peer.greet()
        ask = await peer.next(Ask)
        await peer.say(Refusal(code=code, message="because", id=ask.id, retry_after_s=2.5))
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        with pytest.raises(RefusedError, match="because") as caught:
            client.act(OBSERVATION)
        assert client.act(OBSERVATION).actions[0, 0] == 1
    assert (caught.value.code, caught.value.retry_after_s) == (code, 2.5)
    assert isinstance(caught.value, ValueError) == (code in ("malformed", "unfit"))
    assert isinstance(caught.value, TimeoutError) == (code == "late")


async def closes(peer: Peer) -> None:
    await peer.socket.close()


async def cuts(peer: Peer) -> None:
    peer.socket.transport.abort()


async def half_closes(peer: Peer) -> None:
    peer.socket.transport.write_eof()
    await peer.socket.wait_closed()


async def sends_garbage(peer: Peer) -> None:
    await peer.socket.send(b"\xc1\xff garbage")


async def sends_text(peer: Peer) -> None:
    await peer.socket.send("hello")


async def welcomes_again(peer: Peer) -> None:
    await peer.say(WELCOME)


async def asks_back(peer: Peer) -> None:
    await peer.say(Reset())


async def answers_another_robot(peer: Peer) -> None:
    await peer.answer(peer.received[-1], actions=np.zeros((3, 7), np.float32))  # type: ignore[arg-type]


async def answers_another_time(peer: Peer) -> None:
    await peer.answer(peer.received[-1], observed_at=-1.0)  # type: ignore[arg-type]


FAULTS = [
    *(closes, cuts, half_closes, sends_garbage, sends_text),
    *(welcomes_again, asks_back, answers_another_robot, answers_another_time),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_breaks_fails_the_question_and_comes_back(fault: Script):
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.next(Ask)
        await fault(peer)
        await peer.socket.wait_closed()

    with FakeServer(script, good) as server, client_of(server) as client:
        with pytest.raises(ConnectionLostError, match="broke"):
            client.act(OBSERVATION)
        assert client.act(OBSERVATION).actions[0, 0] == 1
        assert client.num_connections == 2
    assert [ask.id for ask in server.asks()] == [0, 1]
    assert [hello.session for hello in server.received if isinstance(hello, Hello)] == [None, "s1"]


async def says_nothing(peer: Peer) -> None:
    await peer.next(Hello)
    await peer.socket.wait_closed()


async def refuses_busily(peer: Peer) -> None:
    await peer.next(Hello)
    await peer.say(Refusal(code="busy", message="too many robots"))


async def greets_with_garbage(peer: Peer) -> None:
    await peer.socket.send(b"\x00")
    await peer.socket.wait_closed()


async def begins_with_a_wish(peer: Peer) -> None:
    await peer.say(Control(command="hold"))
    await peer.socket.wait_closed()


@pytest.mark.parametrize("fault", [closes, cuts, refuses_busily, greets_with_garbage, begins_with_a_wish])
def test_handshakes_are_tried_until_one_succeeds(fault: Script):
    with FakeServer(fault, fault, good) as server, client_of(server) as client:
        assert client.act(OBSERVATION).actions[0, 0] == 0
    assert server.num_attempts == 3


def test_a_server_that_is_not_ready_is_waited_for():
    with FakeServer(good, statuses=(503, 429, 500)) as server, client_of(server) as client:
        assert client.act(OBSERVATION).actions[0, 0] == 0
    assert server.num_attempts == 4


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (403, "unauthorized"), (404, "unfit")])
def test_a_server_that_does_not_want_us_is_left_alone(status: int, code: Code):
    with FakeServer(good, statuses=(status,)) as server, client_of(server) as client:
        for _ in range(2):
            with pytest.raises(RefusedError) as caught:
                client.act(OBSERVATION)
            assert caught.value.code == code
            assert f"{status}: no" in str(caught.value)
        with pytest.raises(RefusedError):
            _ = client.welcome
    assert server.num_attempts == 1


def test_a_server_of_another_version_is_left_alone():
    async def script(peer: Peer) -> None:
        await peer.greet(protocol=2)

    with FakeServer(script) as server, client_of(server) as client, pytest.raises(RefusedError, match="version 2"):
        client.act(OBSERVATION)
    assert server.num_attempts == 1


def test_a_silent_server_is_not_waited_for_longer_than_asked():
    with FakeServer(says_nothing) as server, client_of(server, timeout_s=0.1) as client:
        with pytest.raises(ConnectionLostError, match="no connection to ws://"):
            client.act(OBSERVATION)
        with pytest.raises(ConnectionLostError):
            _ = client.welcome


def test_no_server_is_a_lost_connection():
    with FakeServer(good) as server:
        url = server.url
    with Client(url, timeout_s=0.1) as client, pytest.raises(ConnectionLostError, match=url):
        client.act(OBSERVATION)


def test_another_model_is_not_taken_for_the_first():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(await peer.next(Ask))
        await closes(peer)

    async def other(peer: Peer) -> None:
        await peer.greet(revision="def")
        await peer.serve_on()

    with FakeServer(script, other) as server, client_of(server) as client:
        client.act(OBSERVATION)
        with pytest.raises((ConnectionLostError, RefusedError)):  # the first when it has not noticed the break yet
            client.act(OBSERVATION)
        with pytest.raises(RefusedError, match="now tiny def, and was tiny abc"):
            client.act(OBSERVATION)


def test_an_answer_after_the_deadline_is_dropped():
    async def script(peer: Peer) -> None:
        await peer.greet()
        first = await peer.next(Ask)
        second = await peer.next(Ask)
        await peer.answer(first)
        await peer.answer(second)

    with FakeServer(script) as server, client_of(server) as client:
        assert client.welcome
        with pytest.raises(LateError, match=r"within 0\.05 s"):
            client.act(OBSERVATION, timeout_s=0.05)
        assert client.act(OBSERVATION).actions[0, 0] == 1
        assert client.num_dropped == 1


def test_the_newest_question_wins_and_order_does_not_matter():
    async def script(peer: Peer) -> None:
        await peer.greet()
        asks = [await peer.next(Ask) for _ in range(3)]
        await peer.say(Refusal(code="superseded", message="", id=asks[0].id))
        for ask in reversed(asks):
            await peer.answer(ask)
        await peer.serve_on()

    async def ask_thrice(url: str) -> None:
        async with AsyncClient(url, backoff=QUICK) as client:
            asked = [asyncio.create_task(client.act(OBSERVATION)) for _ in range(3)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [one.code for one in found[:2]] == ["superseded"] * 2  # type: ignore[union-attr]
            assert found[2].actions[0, 0] == 2  # type: ignore[union-attr]
            await client.act(OBSERVATION)
            assert client.num_dropped == 2

    with FakeServer(script) as server:
        asyncio.run(ask_thrice(server.url))


def test_any_thread_may_ask(server: FakeServer):
    def ask(_: int) -> str:
        try:
            return f"{client.act(OBSERVATION).actions.shape}"
        except RefusedError as error:
            return error.code

    with client_of(server) as client, ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(40))) <= {"(3, 6)", "superseded"}
        assert ask(0) == "(3, 6)"
        assert client.num_connections == 1


def test_a_reset_drops_what_was_asked_before():
    async def script(peer: Peer) -> None:
        await peer.greet()
        before = await peer.next(Ask)
        await peer.next(Reset)
        await peer.answer(before)
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        assert client.welcome
        before = client.begin(OBSERVATION)
        wait_until(server.asks)
        client.reset(seed=5)
        with pytest.raises(RefusedError, match="episode") as caught:
            before.result()
        assert caught.value.code == "superseded"
        assert client.act(OBSERVATION).actions[0, 0] == 1
        assert client.num_dropped == 1
    assert [type(message) for message in server.received] == [Hello, Ask, Reset, Ask]


def test_a_reset_is_told_until_an_answer_shows_that_it_arrived():
    async def loses_it(peer: Peer) -> None:
        await peer.greet()
        await peer.next(Reset)
        await cuts(peer)

    async def answers_once(peer: Peer) -> None:
        await peer.greet()
        await peer.next(Reset)
        await peer.answer(await peer.next(Ask))
        await cuts(peer)

    with FakeServer(loses_it, answers_once, good) as server, client_of(server) as client:
        client.reset(seed=5)
        ask_until_answered(client)
        ask_until_answered(client)
    kinds = [type(message) for message in server.received if not isinstance(message, Ask)]
    assert kinds == [Hello, Reset, Hello, Reset, Hello]
    assert [message.seed for message in server.received if isinstance(message, Reset)] == [5, 5]


def ask_until_answered(client: Client) -> None:
    """As a control loop does: a lost connection is a reason to ask again."""
    for _ in range(5):
        try:
            client.act(OBSERVATION)
        except ConnectionLostError:
            continue
        return
    pytest.fail("no answer in five attempts")


def test_wishes_of_the_operator_are_collected():
    wishes = [Control(command="hold"), Control(instruction="stack the cubes"), Control(command="stop")]

    async def script(peer: Peer) -> None:
        await peer.greet()
        for wish in wishes:
            await peer.say(wish)
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        client.act(OBSERVATION)
        assert client.wishes() == wishes
        assert client.wishes() == []


def test_reports_are_sent(server: FakeServer):
    with client_of(server) as client:
        assert client.welcome
        client.report(MOVED)
        client.act(OBSERVATION)
        assert client.num_unsent == 0
    assert [type(message) for message in server.received] == [Hello, Telemetry, Ask]


def test_reports_that_cannot_be_sent_are_counted():
    with FakeServer(good) as gone:
        url = gone.url
    with Client(url) as alone:
        alone.report(MOVED)
        wait_until(lambda: alone.num_unsent == 1)
    with pytest.raises(ConnectionLostError, match="closed"):
        alone.report(MOVED)


def test_reports_that_the_server_would_refuse_are_not_sent():
    async def script(peer: Peer) -> None:
        await peer.greet(limits=Limits(num_values=11))
        await peer.serve_on()

    with FakeServer(script) as server, client_of(server) as client:
        assert client.welcome
        with pytest.raises(WireError, match="executed"):
            client.report(replace(MOVED, executed=np.full((2, 6), np.nan, np.float32)))
        with pytest.raises(WireError, match="11 numbers"):
            client.report(MOVED)
        client.act(OBSERVATION)
    assert [type(message) for message in server.received] == [Hello, Ask]


def test_a_server_that_does_not_read_harms_nobody(monkeypatch: pytest.MonkeyPatch):
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.socket.transport.pause_reading()
        await peer.socket.wait_closed()

    large = np.zeros((2000, 2000, 3), np.uint8)
    observation = replace(OBSERVATION, images={"front": large, "wrist": large})
    monkeypatch.setattr("molmoact2.client.link.STUCK_S", 0.5)
    with FakeServer(script, good) as server, client_of(server) as client:
        assert client.welcome
        with pytest.raises(LateError, match="did not take"):
            client.act(observation, timeout_s=0.1)
        ask_until_answered(client)
        assert client.num_connections == 2


def test_closing_does_not_wait_for_a_server_that_does_not_read():
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.socket.transport.pause_reading()
        await peer.socket.wait_closed()

    large = np.zeros((2000, 2000, 3), np.uint8)
    with FakeServer(script) as server, client_of(server) as client:
        assert client.welcome
        with pytest.raises(LateError, match="did not take"):
            client.act(replace(OBSERVATION, images={"front": large, "wrist": large}), timeout_s=0.1)


def test_closing_fails_questions_of_other_threads():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.next(Ask)
        await peer.socket.wait_closed()

    with FakeServer(script) as silent, ThreadPoolExecutor(1) as pool:
        client = client_of(silent)
        assert client.welcome
        asked = pool.submit(client.act, OBSERVATION)
        wait_until(silent.asks)
        client.close()
        with pytest.raises(ConnectionLostError):
            asked.result()
        client.close()
        with pytest.raises(ConnectionLostError, match="closed"):
            client.act(OBSERVATION)


def test_a_client_is_closed_while_it_still_tries_to_connect():
    with FakeServer(good) as server:
        url = server.url
    Client(url, backoff=Backoff(first_s=60, longest_s=60)).close()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "http://127.0.0.1:8000", "ws://", "localhost", "ws://a:99999", "ws://a:0"]
)
def test_addresses(url: str):
    with pytest.raises(ValueError, match=r"ws://127\.0\.0\.1:8000|Port"):
        AsyncClient(url)


@pytest.mark.parametrize("wrong", [{"first_s": 0}, {"longest_s": -1}, {"factor": 0.5}, {"jitter": 1.5}])
def test_back_off_is_one(wrong: dict):
    with pytest.raises(ValueError, match="back-off"):
        Backoff(**wrong)


@pytest.mark.parametrize(("option", "value"), [("timeout_s", 0), ("jpeg_quality", 0), ("jpeg_quality", 96)])
def test_options(option: str, value: int):
    with pytest.raises(ValueError, match=option):
        AsyncClient(**{option: value})


@given(st.floats(1e-3, 10), st.floats(1, 4), st.floats(1e-3, 60), st.floats(0, 1))
def test_delays_grow_to_the_longest(first_s: float, factor: float, longest_s: float, jitter: float):
    delays = Backoff(first_s=first_s, factor=factor, longest_s=longest_s, jitter=jitter).delays()
    for n, delay in zip(range(12), delays, strict=False):
        most = min(first_s * factor**n, longest_s)
        assert most * (1 - jitter) * 0.999 <= delay <= most * 1.001


WITHOUT_TORCH = """
import sys
for name in ("torch", "fastapi", "uvicorn", "pyarrow", "av", "tokenizers", "transformers"):
    sys.modules[name] = None
from molmoact2.client import AsyncClient, Client, RemotePlanner, RemotePolicy
print("fine")
"""


def test_a_robot_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody vouches for, beside its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made_for = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([openssl, "req", "-x509", *kind, *made_for, *files], check=True, capture_output=True)
    return folder / "cert.pem"


def complaint_of(client: Client) -> str:
    """Why there is no connection."""
    with pytest.raises(ConnectionLostError) as caught:
        client.act(OBSERVATION, timeout_s=0.1)
    return str(caught.value)


def test_tls(certificate: Path):
    """Who is trusted is talked to, and nobody else."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with FakeServer(good, tls=own) as server:
        with client_of(server, tls=ssl.create_default_context(cafile=str(certificate))) as client:
            assert client.act(OBSERVATION).actions.shape == (3, 6)
        with client_of(server) as stranger:
            wait_until(lambda: "certificate verify failed" in complaint_of(stranger))
    with pytest.raises(ValueError, match="wss://"):
        AsyncClient("ws://127.0.0.1:8000", tls=own)
