"""Strangers, and clients that are slow, silent, half gone, loud or hostile: none of them reaches anybody else."""

import json
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import LiveRobot, LiveServer, live_server, wait_until
from served_policies import Scripted, question, tiny_policy
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from molmoact2.inference import MolmoAct2Policy
from molmoact2.serving.engine import EngineSettings
from molmoact2.serving.security import Rate
from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.codec import encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Hello, Welcome

TOKEN = "a token that nobody guesses"
IMPATIENT = ServerSettings(port=0, first_byte_s=0.3, body_s=0.3, idle_s=0.3, write_s=0.3, connections_per_client=8)
SMALL = EngineSettings(limits=replace(Limits(), message_bytes=200_000))
WEBSOCKETS = ("/", "/v1", "/openpi", "/harness")
HTTP = ("/act", "/reset")
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MolmoAct2Policy:
    return tiny_policy(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="module")
def guarded(tiny: MolmoAct2Policy) -> Iterator[LiveServer]:
    with live_server(Scripted(tiny), settings=ServerSettings(port=0, token=TOKEN)) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(tiny: MolmoAct2Policy) -> Iterator[LiveServer]:
    with live_server(Scripted(tiny), settings=IMPATIENT, taken_on=SMALL) as server:
        yield server


@pytest.fixture(scope="module")
def attacked(tiny: MolmoAct2Policy) -> Iterator[LiveServer]:
    with live_server(tiny, settings=ServerSettings(port=0, messages_per_s=1e6), taken_on=SMALL) as server:
        yield server


def is_served(server: LiveServer) -> bool:
    """Whether a robot that behaves is answered."""
    with server.robot() as robot:
        return isinstance(robot.ask(question()), Answer)


# ---- who may ask


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {TOKEN}"}, True),
        ({"Authorization": f"Api-Key {TOKEN}"}, True),
        ({"Authorization": f"bearer  {TOKEN}"}, True),
        ({"Authorization": TOKEN}, False),
        ({"Authorization": f"Basic {TOKEN}"}, False),
        ({"Authorization": f"Bearer {TOKEN}x"}, False),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, False),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": "Bearer \xe9"}, False),
        ({"Cookie": f"token={TOKEN}"}, False),
    ],
)
def test_everything_that_matters_needs_the_token(guarded: LiveServer, headers: dict, is_let_in: bool):
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    with guarded.http() as client:
        assert {client.get(path, headers=raw).status_code for path in ("/metadata", "/metrics", "/act")} == {
            200 if is_let_in else 401
        }
        assert client.post("/act", content=b"{}", headers=raw).status_code == (400 if is_let_in else 401)
        assert {client.get(path).status_code for path in ("/health", "/healthz", "/ready", "/")} == {200}
        posted = client.post("/dashboard/command", json={"session": "*", "command": "resume"}, headers=raw)
        assert posted.status_code == (200 if is_let_in else 401)
    for path in WEBSOCKETS:
        if "Cookie" in headers or not headers.get("Authorization", "").isascii():
            continue
        if is_let_in:
            with guarded.websocket(path, additional_headers=headers) as websocket:
                assert websocket.response is not None
        else:
            with pytest.raises(InvalidStatus) as refusal:
                guarded.websocket(path, additional_headers=headers)
            assert refusal.value.response.status_code == 401


def test_beyond_this_computer_a_token_is_required():
    for host in ("0.0.0.0", "::", "192.168.1.5", "robot.local"):
        with pytest.raises(ValueError, match="token"):
            ServerSettings(host=host)
        assert ServerSettings(host=host, token=TOKEN).allowed_hosts is None
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        assert ServerSettings(host=host).allowed_hosts is not None
    with pytest.raises(ValueError, match="16"):
        ServerSettings(token="short")
    with pytest.raises(ValueError, match="both"):
        ServerSettings(tls_cert=Path("cert.pem"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ],
)
def test_web_pages_cannot_reach_a_server_without_a_token(impatient: LiveServer, headers: dict, status: int):
    with impatient.http() as client:
        assert client.get("/metadata", headers=headers).status_code == status
        assert client.post("/reset", content=b"{}", headers=headers).status_code == status


def test_web_pages_cannot_open_a_websocket(impatient: LiveServer):
    for path in WEBSOCKETS:
        with pytest.raises(InvalidStatus) as refusal:
            impatient.websocket(path, origin="http://evil.example")
        assert refusal.value.response.status_code == 403


def test_too_many_messages_of_one_client_are_refused(tiny: MolmoAct2Policy):
    with live_server(Scripted(tiny), settings=ServerSettings(port=0, messages_per_s=2)) as server:
        with server.http() as client:
            responses = [client.get("/health") for _ in range(8)]
        assert {response.status_code for response in responses} == {200, 429}
        assert responses[-1].headers["retry-after"] == "1"


def test_a_rate_is_kept_per_client_and_recovers():
    now = [0.0]
    rate = Rate(2.0, clock=lambda: now[0])
    assert [rate.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert rate.take("b")
    now[0] = 0.5
    assert [rate.take("a") for _ in range(2)] == [True, False]
    for i in range(5000):
        rate.take(f"client {i}")
    assert len(rate._buckets) <= 4096


# ---- how much, and how slowly


def test_what_is_too_long_is_refused_while_it_arrives(impatient: LiveServer):
    with impatient.http() as client:
        assert client.post("/act", content=b"x" * 300_000).status_code == 400
        endless = (b"x" * 50_000 for _ in range(8))
        assert client.post("/act", content=endless).status_code == 400
    for path in WEBSOCKETS:
        with impatient.websocket(path) as websocket:
            with suppress(ConnectionClosed):
                websocket.send(b"x" * 300_000)
                while True:
                    websocket.recv(timeout=10)
            assert websocket.close_code == 1009
    assert is_served(impatient)


def ended(line: socket.socket) -> bool:
    """Whether the server closed the connection, after whatever it said."""
    try:
        while line.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def shaken_hands(server: LiveServer, path: str) -> socket.socket:
    """A websocket whose frames are written by hand."""
    line = server.socket()
    line.sendall(HANDSHAKE.format(path=path).encode())
    assert line.recv(1000).startswith(b"HTTP/1.1 101")
    return line


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"POST /act HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
        b"GET /v1 HTTP/1.1\r\nUpgrade: websocket\r\n",
    ],
    ids=["nothing", "head", "body", "handshake"],
)
def test_who_begins_and_does_not_go_on_is_sent_away(impatient: LiveServer, begun: bytes):
    with impatient.socket() as line:
        line.sendall(begun)
        assert is_served(impatient), "a silent client holds up another"
        assert ended(line)


@pytest.mark.parametrize(("path", "begun"), [(path, b"") for path in WEBSOCKETS] + [("/v1", b"\x82\xfe\x40\x00mask")])
def test_a_websocket_on_which_nothing_is_said_is_closed(impatient: LiveServer, path: str, begun: bytes):
    with shaken_hands(impatient, path) as line:
        line.sendall(begun)
        assert is_served(impatient), "a silent client holds up another"
        assert ended(line)


def test_a_second_request_that_never_ends_is_sent_away_too(impatient: LiveServer):
    with impatient.socket() as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 200")
        line.sendall(b"GET /health HTTP/1.1\r\n")
        assert ended(line)


def test_who_does_not_read_is_sent_away(impatient: LiveServer):
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # before it connects: a small window
        line.connect(("127.0.0.1", impatient.port))
        line.settimeout(20)
        line.sendall(HANDSHAKE.format(path="/openpi").encode())
        line.recv(10)
        unheard_of = msgpack.packb({f"{i:048}": None for i in range(24)})
        frame = b"\x82\xfe" + struct.pack(">H", len(unheard_of)) + bytes(4) + unheard_of
        with suppress(ConnectionError):
            while True:
                line.sendall(frame)
    assert is_served(impatient)


def test_half_closed_and_reset_connections_harm_nobody(impatient: LiveServer):
    for path in WEBSOCKETS:
        with shaken_hands(impatient, path) as line:
            line.shutdown(socket.SHUT_WR)
            assert ended(line)
        line = shaken_hands(impatient, path)
        line.sendall(b"\x82\xfe")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()
    assert is_served(impatient)
    wait_until(lambda: len(impatient.server.server_state.connections) == 0)


def test_one_client_has_few_connections(impatient: LiveServer):
    lines = [impatient.socket() for _ in range(IMPATIENT.connections_per_client)]
    try:
        wait_until(lambda: len(impatient.server.server_state.connections) == len(lines))
        with impatient.socket() as one_too_many:
            assert ended(one_too_many)
    finally:
        for line in lines:
            line.close()
    wait_until(lambda: len(impatient.server.server_state.connections) == 0)
    assert is_served(impatient)


def test_a_message_of_endless_pieces_is_given_up(impatient: LiveServer):
    with shaken_hands(impatient, "/v1") as line:
        first, more = b"\x02\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
        line.sendall(first + more * 2000)
        assert ended(line)


# ---- nonsense


FIELDS = ("type", "id", "images", "state", "observation", "payload", "seq", "timestamp", "shape", "dtype", "data")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


def nonsense(path: str) -> st.SearchStrategy[bytes]:
    """Random bytes; msgpack and JSON of random values; and real messages with a few bytes changed."""
    real = encode(Hello(client="x")) if path == "/v1" else json.dumps({"state": [0] * 6, "images": {}}).encode()
    changed = st.tuples(st.integers(0, len(real) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: real[: change[0]] + change[1] + real[change[0] + 1 :]
    )
    packed = VALUES.map(lambda value: msgpack.packb(value, unicode_errors="surrogatepass"))
    return st.binary(max_size=200) | packed | changed


def answer_of(server: LiveServer) -> np.ndarray:
    with server.robot() as robot:
        answer = robot.ask(question(2, seed=3, num_steps=1))
    assert isinstance(answer, Answer)
    return answer.actions


@pytest.mark.parametrize("path", WEBSOCKETS)
def test_no_message_breaks_a_websocket_or_changes_an_answer(attacked: LiveServer, path: str):
    before, sessions = answer_of(attacked), len(attacked.engine.sessions)

    @settings(max_examples=10)
    @given(st.lists(nonsense(path), min_size=1, max_size=4))
    def attack(messages: list[bytes]) -> None:
        with attacked.websocket(path) as websocket:
            if path == "/openpi":
                websocket.recv(timeout=30)
            with suppress(ConnectionClosed):
                for message in messages:
                    websocket.send(message)
                    reply = websocket.recv(timeout=30)
                    assert b"Traceback" not in (reply if isinstance(reply, bytes) else reply.encode())
        assert websocket.close_code in (1000, 1002, 1013), "the connection broke instead of being closed"

    attack()
    np.testing.assert_array_equal(answer_of(attacked), before)
    wait_until(lambda: len(attacked.engine.sessions) <= sessions + 1)


@pytest.mark.parametrize("path", HTTP)
def test_no_body_breaks_a_request_or_changes_an_answer(attacked: LiveServer, path: str):
    before = answer_of(attacked)
    with attacked.http() as client:

        @settings(max_examples=40)
        @given(nonsense(path))
        def attack(body: bytes) -> None:
            response = client.post(path, content=body)
            assert response.status_code in (200, 400)
            assert "Traceback" not in response.text

        attack()
    np.testing.assert_array_equal(answer_of(attacked), before)


@pytest.mark.parametrize("bytes_", [b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00" * 20])
def test_what_is_not_http_is_sent_away(attacked: LiveServer, bytes_: bytes):
    with attacked.socket() as line:
        line.sendall(bytes_ + b"\r\n\r\n")
        assert ended(line)
    assert is_served(attacked)


def test_an_error_of_ours_says_an_id_and_nothing_else(
    tiny: MolmoAct2Policy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(*_: object) -> None:
        raise RuntimeError("/home/secret")

    monkeypatch.setattr("molmoact2.serving.dialects.upstream.whom", broken)
    with live_server(Scripted(tiny)) as server, server.http() as client:
        response = client.get("/act")
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["error"].removeprefix("Error ").removesuffix(".") in caplog.text
        assert is_served(server)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_tls_encrypts(tiny: MolmoAct2Policy, tmp_path: Path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ServerSettings(port=0, tls_cert=certificate, tls_key=key)
    trusted = ssl.create_default_context(cafile=certificate)
    with live_server(Scripted(tiny), settings=tls) as server:
        with httpx.Client(base_url=f"https://localhost:{server.port}", verify=trusted) as client:
            assert [client.get("/ready").text for _ in range(3)] == ["ready\n"] * 3
        with connect(f"wss://localhost:{server.port}/v1", ssl=trusted, compression=None) as websocket:
            robot = LiveRobot(websocket)
            assert isinstance(robot.ask(Hello(client="test")), Welcome)
            assert all(isinstance(robot.ask(question(number)), Answer) for number in range(3))
        with pytest.raises(httpx.HTTPError), server.http() as client:
            client.get("/ready")
