"""The dashboard's routes in a real server: what needs the token, what is refused, what is sent along."""

import json

import pytest
from live_server import LiveServer, live_server, wait_until
from made_up_flights import made_up

from molmoact2.inference import load_policy
from molmoact2.serving.dashboard import Board
from molmoact2.serving.dashboard.routes import FILES, NUM_VIEWERS
from molmoact2.serving.settings import ServerSettings
from molmoact2.testing import tiny_checkpoint

TOKEN = "a-token-of-sufficient-length"
SAYS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    policy = load_policy(tiny_checkpoint(tmp_path_factory.mktemp("policies") / "tiny"))
    with live_server(policy, settings=ServerSettings(port=0, token=TOKEN)) as running:
        running.on_loop(lambda: board_of(running).exchanged(made_up(0)))
        yield running


def board_of(server: LiveServer) -> Board:
    return next(watcher for watcher in server.engine.watchers if isinstance(watcher, Board))


def test_the_page_and_its_files_need_no_token_and_send_nothing_elsewhere(server: LiveServer):
    with server.http() as http:
        for path in ("/", *(f"/dashboard/{name}" for name in FILES)):
            answer = http.get(path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "<script>" not in answer.text
            assert " style=" not in answer.text
        assert http.get("/dashboard/routes.py").status_code == 404
        assert http.get("/dashboard/..%2f__init__.py").status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
def test_everything_else_needs_the_token(server: LiveServer, headers: dict):
    with server.http(headers=headers) as http:
        assert http.get("/dashboard/live").status_code == 401
        assert http.post("/dashboard/command", json={"session": "one", "command": "hold"}).status_code == 401
        assert http.post("/dashboard/instruction", json={"session": "one", "text": "x"}).status_code == 401
    assert server.engine.operator.wish_of("one").command is None


def test_commands_and_instructions_reach_the_operator(server: LiveServer):
    operator = server.engine.operator
    with server.http(headers=SAYS) as http:
        for command, wish in (("hold", "hold"), ("stop", "stop"), ("resume", None)):
            assert http.post("/dashboard/command", json={"session": "one", "command": command}).status_code == 200
            assert operator.wish_of("one").command == wish
        assert http.post("/dashboard/command", json={"session": "*", "command": "stop"}).status_code == 200
        assert operator.wish_of("anyone").command == "stop"
        http.post("/dashboard/command", json={"session": "*", "command": "resume"})
        assert http.post("/dashboard/instruction", json={"session": "one", "text": "sing"}).status_code == 200
        assert operator.wish_of("one").instruction == "sing"
        http.post("/dashboard/instruction", json={"session": "one", "text": None})
        assert operator.wish_of("one").instruction is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("command", {"session": "one", "command": "jump"}),
        ("command", {"session": "one"}),
        ("command", {"session": "one", "command": "hold", "also": 1}),
        ("command", {"session": "x" * 300, "command": "hold"}),
        ("instruction", {"session": "one", "text": "x" * 3000}),
        ("instruction", {"session": "one", "text": "   "}),
        ("instruction", {"session": "one", "text": ["x"]}),
    ],
)
def test_malformed_wishes_are_refused(server: LiveServer, path: str, body: dict):
    with server.http(headers=SAYS) as http:
        assert http.post(f"/dashboard/{path}", json=body).status_code in (400, 422)
    assert server.engine.operator.wish_of("one").command is None


def test_a_form_of_another_page_is_no_command(server: LiveServer):
    body = json.dumps({"session": "one", "command": "stop"})
    with server.http(headers=SAYS) as http:
        plain = http.post("/dashboard/command", content=body, headers={"Content-Type": "text/plain"})
        foreign = http.post(
            "/dashboard/command", content=body, headers={"Content-Type": "application/json", "Origin": "http://evil"}
        )
    assert (plain.status_code, foreign.status_code) == (422, 403)
    assert server.engine.operator.wish_of("one").command is None


def test_live_news_are_server_sent_events(server: LiveServer):
    with server.http(headers=SAYS) as http, http.stream("GET", "/dashboard/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        line = next(line for line in answer.iter_lines() if line)
    message = json.loads(line.removeprefix("data: "))
    assert (message["chosen"], message["model"], len(message["plans"])) == ("one", "tiny", 1)
    assert message["cameras"][0]["name"] == "front"


def test_too_many_viewers_are_sent_away(server: LiveServer):
    with server.http(headers=SAYS) as http:
        streams = [http.send(http.build_request("GET", "/dashboard/live"), stream=True) for _ in range(NUM_VIEWERS)]
        readers = [stream.iter_lines() for stream in streams]
        for reader in readers:
            next(reader)
        assert http.get("/dashboard/live").status_code == 503
        for stream in streams:
            stream.close()


def test_a_viewer_that_does_not_read_is_dropped_and_holds_up_nobody(server: LiveServer):
    settings = ServerSettings(port=0, token=TOKEN, write_s=0.2)
    with live_server(server.engine.policy, settings=settings) as other, other.socket() as viewer, other.http() as http:
        board = board_of(other)
        viewer.sendall(f"GET /dashboard/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())

        def is_dropped() -> bool:
            show = made_up(board.version, height=600, width=800)
            other.on_loop(lambda: board.exchanged(show))
            assert http.get("/health").status_code == 200
            return len(other.server.server_state.connections) == 1

        http.get("/health")
        wait_until(lambda: len(other.server.server_state.connections) == 2)
        wait_until(is_dropped)
