"""A model behind an OpenAI-compatible address: one chat completion per question, with the pictures inside.

What may pass by itself (no connection, 429, 5xx, a reply that is no JSON) is tried again after a pause that doubles, or
that the server asks for. What will not (a wrong key, model or address) ends the run. The key goes into one header and
nowhere else: not into messages, not onto the disk, and not to another address, because redirections are not followed.
"""

import base64
import json
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from molmoact2.data.errors import require
from molmoact2.evaluation.annotation.answering import Answer, NoAnswerError
from molmoact2.evaluation.annotation.question import Question
from molmoact2.evaluation.annotation.storyboard import jpeg

TEMPERATURE = 0.1
"""paper.md 1."""
MAX_TOKENS = 512
TRIES = 8
"""Times that a request is sent; the pauses between them add up to about two minutes."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 600.0
"""A server that asks for a longer one ends the run."""
MOST_BYTES = 8 * 1024**2
"""Of a reply that is read."""
LONGEST_QUOTE = 300
"""Characters of a server's own words in a message."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
ABOUT_THE_QUESTION = frozenset({400, 413, 422})
"""For instance too many pictures, or a filter."""
ADVICE = {
    401: "Check the key in --api-key-file.",
    403: "Check the key in --api-key-file, and what it may do.",
    404: "Check --endpoint, which usually ends in /v1, and --model.",
}
ADDRESS = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?(/[\w.~%/-]*)?", re.ASCII)
OURS = ("messages", "model", "stream", "n")


class EndpointError(ValueError):
    """An endpoint that cannot be used, or not now."""


class PassingError(Exception):
    """Something that may be over at the next try."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        """The server's wish; 0 where it has none."""


class NoRedirections(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer like any other that is not 200."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        """Follow nothing."""


OPENER = urllib.request.build_opener(NoRedirections)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model is, and how it is asked."""

    url: str
    """Up to and without "/chat/completions", for instance "http://localhost:8000/v1"."""
    model: str
    """As the endpoint calls it."""
    api_key: str = field(default="", repr=False)
    request: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, in place of ours; None takes one out."""
    timeout_s: float = 120.0
    """Longest silence of the server."""
    wait: Callable[[float], None] = field(default=time.sleep, repr=False)
    """Waits so many seconds."""
    tell: Callable[[str], None] = field(default=lambda _: None, repr=False)
    """Is told why a request is tried again."""

    def __post_init__(self) -> None:
        hides_nothing = not set(self.url) & set("@?#")
        require(
            ADDRESS.fullmatch(self.url) is not None,
            "An endpoint is an http or https address without user, password or query, such as "
            f"http://localhost:8000/v1, got {self.url if hides_nothing else 'one that has them'}.",
        )
        taken = sorted(set(OURS) & set(self.request))
        require(not taken, f"The fields {taken} of a request are decided here and cannot be given.")
        require(bool(self.model), "An endpoint needs --model, the name by which it knows the model.")

    @property
    def name(self) -> str:
        """What people call it."""
        return self.model

    @property
    def identity(self) -> str:
        """Model and fields of the request; the same model at another address gives the same answers."""
        return json.dumps([self.model, TEMPERATURE, MAX_TOKENS, dict(self.request)], sort_keys=True)

    def answer(self, question: Question) -> Answer:
        """One chat completion, after as many tries as it takes.

        Raises NoAnswerError where the reply has no text, and EndpointError where the endpoint cannot be used.
        """
        body = json.dumps(self._body(question)).encode()
        trouble = PassingError("")
        for number in range(1, TRIES + 1):
            try:
                return self._read(self._post(body))
            except PassingError as error:
                trouble = error
            if number < TRIES:
                self._pause(number, trouble)
        raise EndpointError(
            f"{self.url} failed {TRIES} times in a row, at last with: {trouble}. Check --endpoint and its server. "
            "What was answered is kept; the same command goes on."
        )

    def _pause(self, number: int, trouble: PassingError) -> None:
        """Wait after try `number`, as long as the server asks for, else about twice as long as the time before."""
        pause_s = trouble.pause_s or FIRST_PAUSE_S * 2 ** (number - 1) * random.uniform(0.75, 1.0)
        wish = f"{self.url} asks to wait {pause_s:.0f} s ({trouble}). Run the same command then; it goes on."
        require_endpoint(pause_s <= LONGEST_PAUSE_S, wish)
        self.tell(f"{trouble}; try {number + 1} of {TRIES} in {pause_s:.0f} s")
        self.wait(pause_s)

    def _body(self, question: Question) -> dict[str, Any]:
        content = [*pictures(question), {"type": "text", "text": question.text}]
        fields = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": TEMPERATURE,
            "max_tokens": MAX_TOKENS,
            **self.request,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def _post(self, body: bytes) -> bytes:
        """The reply's bytes; PassingError, NoAnswerError or EndpointError for any but a 200."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "molmoact2"}
        request = urllib.request.Request(self.url.rstrip("/") + "/chat/completions", body, headers)
        if self.api_key:
            request.add_unredirected_header("Authorization", f"Bearer {self.api_key}")
        try:
            with OPENER.open(request, timeout=self.timeout_s) as reply:
                return reply.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            raise PassingError(self._quote(f"no connection ({error or type(error).__name__})")) from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What an HTTP status means."""
        try:
            words = error.read(MOST_BYTES).decode("utf-8", "replace")
        except (OSError, HTTPException):
            words = ""
        said = self._quote(f"HTTP {error.code} {' '.join(words.split())}".strip())
        if error.code in PASSING:
            return PassingError(said, pause_asked_for(error.headers))
        if error.code in ABOUT_THE_QUESTION:
            return NoAnswerError(said)
        advice = ADVICE.get(error.code, "Give an address that answers chat completions by itself.")
        return EndpointError(f"{self.url} answered {said}. {advice} What was answered is kept.")

    def _read(self, reply: bytes) -> Answer:
        """The text of a chat completion."""
        try:
            content = json.loads(reply[:MOST_BYTES])
            choices, usage = content["choices"], content.get("usage") or {}
            used = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
            choice = (choices or [{}])[0]
            message, reason = choice.get("message") or {}, choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            said = " ".join(reply[:LONGEST_QUOTE].decode("utf-8", "replace").split())
            raise PassingError(self._quote(f"a reply that is no chat completion: {said or 'nothing'}")) from None
        problems = {
            f"the model refused: {refusal}": bool(refusal),
            "the answer was withheld by a filter": reason == "content_filter",
            "the answer was cut off at max_tokens. If the model thinks before it answers, switch that off, or give it "
            "more with --request '{\"max_tokens\": 4096}'": reason == "length",
            "the reply holds no answer": not isinstance(text, str) or not text.strip(),
        }
        for problem in (problem for problem, applies in problems.items() if applies):
            raise NoAnswerError(self._quote(problem))
        return Answer(text=self._without_key(str(text)), input_tokens=used[0], output_tokens=used[1])

    def _quote(self, words: str) -> str:
        """A server's words for a message: short, printable, and without the key, which some servers repeat."""
        return "".join(filter(str.isprintable, self._without_key(words)))[:LONGEST_QUOTE]

    def _without_key(self, words: str) -> str:
        return words.replace(self.api_key or "\0", "[key]")


def pictures(question: Question) -> Iterator[dict[str, Any]]:
    """The pictures as parts of a message, each camera's after its name."""
    for camera, images in question.storyboard.views.items():
        yield {"type": "text", "text": f"Camera {camera!r}, {len(images)} moments in their order:"}
        for image in images:
            address = "data:image/jpeg;base64," + base64.b64encode(jpeg(image)).decode("ascii")
            yield {"type": "image_url", "image_url": {"url": address}}


def pause_asked_for(headers: Message) -> float:
    """Seconds that Retry-After asks to wait, as a number or as a date; 0 without it."""
    wish = (headers.get("Retry-After") or "").strip()
    try:
        return (
            max(0.0, float(wish))
            if wish[:1].isdigit()
            else max(0.0, parsedate_to_datetime(wish).timestamp() - time.time())
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0


def require_endpoint(is_right: bool, message: str) -> None:
    """Raise an EndpointError with `message` unless something is right."""
    if not is_right:
        raise EndpointError(message)


def read_api_key(path: Path) -> str:
    """The key in a file of one line. Raises ValueError, which does not repeat what the file holds."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The key in {path} cannot be read ({type(error).__name__}). Give a file that holds it."
        ) from None
    is_key = bool(key) and key.isprintable() and not key.split()[1:]
    require(is_key, f"{path} does not hold a key: one line of letters, digits and signs, without spaces.")
    return key


def read_request(text: str) -> dict[str, Any]:
    """The fields of --request, a JSON object."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--request must be a JSON object, got {text!r} ({error}).") from None
    require(isinstance(content, dict), f"--request must be a JSON object, got {text!r}.")
    return content
