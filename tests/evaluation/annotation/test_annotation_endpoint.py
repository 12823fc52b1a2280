"""The endpoint: what is tried again and how long later, what is an answer, what ends a run, and where the key goes."""

import json
import re
import socket
import threading
import time
from email.utils import formatdate

import numpy as np
import pytest
from fake_endpoint import FakeServer, completion

from molmoact2.evaluation.annotation.answering import NoAnswerError
from molmoact2.evaluation.annotation.endpoint import (
    LONGEST_QUOTE,
    TRIES,
    Endpoint,
    EndpointError,
    pause_asked_for,
    read_api_key,
    read_request,
)
from molmoact2.evaluation.annotation.question import Question
from molmoact2.evaluation.annotation.storyboard import Storyboard

KEY = "sk-very-secret/123"


@pytest.fixture
def question():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    board = Storyboard(episode_index=0, task="wave", views={"front": images}, frozen=())
    return Question(storyboard=board, num_words=9)


def test_an_answer_and_what_it_cost(server, question):
    server.script = [completion(" Wave. ", finish_reason="stop")]
    answer = server.endpoint().answer(question)
    assert (answer.text, answer.input_tokens, answer.output_tokens) == (" Wave. ", 100, 10)
    server.script = [(200, {}, b'{"choices": [{"message": {"content": "Wave"}}]}')]
    assert server.endpoint().answer(question).input_tokens == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again_with_growing_pauses(server, question, status):
    server.script = [(status, {}, b"busy")] * 4 + [completion("Wave")]
    endpoint = server.endpoint()
    assert endpoint.answer(question).text == "Wave"
    assert len(server.requests) == 5
    assert all(0.75 * 2**n <= pause <= 2**n for n, pause in enumerate(server.pauses))
    assert server.told[0].startswith(f"HTTP {status} busy; try 2 of {TRIES} in 1 s")


def test_the_server_says_how_long_to_wait(server, question):
    server.script = [(429, {"Retry-After": "17"}, b""), (503, {"Retry-After": "0"}, b""), completion("Wave")]
    server.endpoint().answer(question)
    assert server.pauses[0] == 17
    assert 1.5 <= server.pauses[1] <= 2


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [("2.5", 2.5), ("", 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 -0000", 0), ("-3", 0), ("9e999", 0)],
)
def test_wishes(wish, seconds):
    assert pause_asked_for({"Retry-After": wish}) in (seconds, float("inf"))


def test_a_wish_as_a_date():
    assert 8 < pause_asked_for({"Retry-After": formatdate(time.time() + 10, usegmt=True)}) <= 10


def test_a_long_wish_ends_the_run(server, question):
    server.script = [(429, {"Retry-After": "3600"}, b"quota")]
    with pytest.raises(EndpointError, match=r"asks to wait 3600 s \(HTTP 429 quota\).*it goes on"):
        server.endpoint().answer(question)
    assert not server.pauses


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>gateway</html>",
        b"",
        b'{"choices": ',
        b"[]",
        b'{"error": "overloaded"}',
        b'{"choices": 5}',
        b'{"choices": [], "usage": {"prompt_tokens": 1e999}}',
        b"[" * 99999,
    ],
)
def test_a_reply_that_is_no_completion_is_tried_again(server, question, reply):
    server.script = [(200, {}, reply), completion("Wave")]
    assert server.endpoint().answer(question).text == "Wave"
    assert "no chat completion" in server.told[0]
    server.otherwise = (200, {}, reply)
    with pytest.raises(EndpointError, match=rf"failed {TRIES} times in a row.*Check --endpoint.*goes on"):
        server.endpoint().answer(question)
    assert len(server.requests) == 2 + TRIES
    assert len(server.pauses) == len(server.told) == TRIES - 1
    assert 95 < sum(server.pauses) < 128


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((200, {}, b'{"choices": []}'), "holds no answer"),
        (completion(None), "holds no answer"),
        (completion(" "), "holds no answer"),
        (completion([{"type": "text", "text": "Wave"}]), "holds no answer"),
        ((200, {}, b'{"choices": [{"message": {"content": null, "refusal": "No."}}]}'), r"refused: No\."),
        (completion("Wave", finish_reason="content_filter"), "filter"),
        (completion("<think>Let me", finish_reason="length"), r"cut off at max_tokens.*--request"),
        ((400, {}, b'{"error": "too many images"}'), r"HTTP 400 .*too many images"),
        ((413, {}, b""), "HTTP 413"),
    ],
)
def test_no_answer_to_this_question(server, question, reply, reason):
    server.script = [reply]
    with pytest.raises(NoAnswerError, match=reason):
        server.endpoint().answer(question)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "--api-key-file"), (403, "may do"), (404, "--model"), (302, "by itself")]
)
def test_what_will_not_pass_ends_the_run_at_once(server, question, status, advice):
    server.script = [(status, {"Location": "http://127.0.0.1:1/v1"}, b"words " * 500)]
    with pytest.raises(EndpointError, match=rf"HTTP {status} words words.*{advice}") as caught:
        server.endpoint().answer(question)
    assert len(server.requests) == 1
    assert len(str(caught.value)) < LONGEST_QUOTE + 250


def test_a_silent_server_is_given_up_on(question):
    release = threading.Event()

    def hang(_request):
        release.wait(30)
        return completion("Too late")

    with FakeServer([hang, completion("Wave")]).running() as server:
        started = time.monotonic()
        assert server.endpoint(timeout_s=0.2).answer(question).text == "Wave"
        assert time.monotonic() - started < 5
        assert "timed out" in server.told[0]
        release.set()


def test_a_connection_that_breaks_off_is_tried_again(server, question):
    def break_off(_request):
        raise ConnectionResetError

    def promise_more(_request):
        return 200, {"Content-Length": "99999"}, b'{"choices"'

    server.script = [break_off, completion("Wave")]
    assert server.endpoint().answer(question).text == "Wave"
    assert "no connection" in server.told[0]


def test_nobody_there(question):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        endpoint = Endpoint(url=url, model="toy", wait=lambda _: None)
        with pytest.raises(EndpointError, match=r"failed 8 times.*no connection.*refused.*Check --endpoint"):
            endpoint.answer(question)


def test_the_key_is_sent_and_told_to_nobody(server, question):
    echo = f"Incorrect key: {KEY}"
    server.script = [
        (500, {}, echo.encode()),
        (200, {}, echo.encode()),
        completion(f"Push {KEY}"),
        (400, {}, echo.encode()),
        (200, {}, json.dumps({"choices": [{"message": {"refusal": echo}}]}).encode()),
        (401, {}, echo.encode()),
    ]
    endpoint = server.endpoint(api_key=KEY)
    said = [endpoint.answer(question).text, *server.told]
    for kind in (NoAnswerError, NoAnswerError, EndpointError):
        with pytest.raises(kind) as caught:
            endpoint.answer(question)
        said.append(str(caught.value))
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    assert KEY not in " ".join([*said, repr(endpoint), endpoint.identity, json.dumps(server.requests)])
    assert all("[key]" in words for words in said)


def test_a_servers_words_cannot_play_with_the_terminal(server, question):
    server.script = [(400, {}, "wait\x1b[2J\r\n\u202enow".encode())]
    with pytest.raises(NoAnswerError) as caught:
        server.endpoint().answer(question)
    assert str(caught.value) == "HTTP 400 wait[2J now"


def test_without_a_key_there_is_no_header(server, question):
    server.endpoint().answer(question)
    assert "Authorization" not in server.headers[0]


def test_the_key_does_not_follow_a_redirection(server, question):
    with FakeServer().running() as other:
        server.script = [(307, {"Location": f"{other.url}/chat/completions"}, b"")]
        with pytest.raises(EndpointError, match="HTTP 307"):
            server.endpoint(api_key=KEY).answer(question)
        assert not other.requests


@pytest.mark.parametrize("address", ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "", "file:///etc/passwd"])
def test_addresses_that_are_none(address):
    with pytest.raises(ValueError, match=r"http or https address.*such as http://localhost:8000/v1, got"):
        Endpoint(url=address, model="toy")


@pytest.mark.parametrize("address", [f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}"])
def test_addresses_with_secrets_are_refused_without_repeating_them(address):
    with pytest.raises(ValueError, match="got one that has them") as caught:
        Endpoint(url=address, model="toy")
    assert KEY not in str(caught.value)


def test_fields_of_ours_are_not_given():
    with pytest.raises(ValueError, match=r"\['messages', 'stream'\]"):
        Endpoint(url="http://host/v1", model="toy", request={"stream": True, "messages": [], "top_p": 1})
    with pytest.raises(ValueError, match="--model"):
        Endpoint(url="http://host/v1", model="")


def test_the_identity_is_of_what_changes_answers():
    one = Endpoint(url="http://host/v1", model="toy", request={"top_p": 1, "seed": 2})
    same = Endpoint(url="https://elsewhere/v1", model="toy", api_key=KEY, request={"seed": 2, "top_p": 1}, timeout_s=1)
    other = Endpoint(url="http://host/v1", model="toy", request={"top_p": 1})
    assert one.identity == same.identity != other.identity


def test_a_key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\n")
    assert read_api_key(path) == KEY
    for content in (b"", b"two words", b"two\nlines", b"\xff\xfe", b"tab\there", b"\x00"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            read_api_key(path)
        assert "two" not in str(caught.value)
    with pytest.raises(ValueError, match="FileNotFoundError"):
        read_api_key(tmp_path / "none")


def test_request_fields():
    assert read_request('{"max_tokens": null}') == {"max_tokens": None}
    for text in ("{", "[]", "5"):
        with pytest.raises(ValueError, match="--request must be a JSON object"):
            read_request(text)
