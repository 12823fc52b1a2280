"""An OpenAI-compatible endpoint in a thread, which answers as a test tells it to, and datasets to ask it about."""

import base64
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.evaluation.annotation.endpoint import Endpoint

COLOURS = ((220, 40, 40), (40, 180, 40), (50, 60, 220), (230, 210, 40), (150, 60, 190))
NAMES = ("red", "green", "blue", "yellow", "purple")


def completion(text, **choice):
    """A reply with one choice."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}, **choice}], "usage": usage}).encode()


def pictures_of(request):
    """The pictures of a request, as arrays."""
    parts = request["messages"][0]["content"]
    addresses = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))) for address in addresses]


def words_of(request):
    """The words of a request."""
    return "\n".join(part["text"] for part in request["messages"][0]["content"] if part["type"] == "text")


def look(request):
    """The answer of a model that sees which colour most of the first picture has."""
    red, green, blue = pictures_of(request)[0].reshape(-1, 3).mean(axis=0)
    distances = [np.abs(np.array(colour) - (red, green, blue)).sum() for colour in COLOURS]
    return completion(f"Push the {NAMES[int(np.argmin(distances))]} block to the left")


class FakeServer:
    """Plays `script`, one reply per request, then goes on with `otherwise`. A reply is made of the request."""

    def __init__(self, script=(), otherwise=look):
        self.script, self.otherwise = list(script), otherwise
        self.requests, self.headers, self.times = [], [], []
        self.num_open = self.most_open = 0
        self.lock = threading.Lock()

    def reply(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append(body)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            self.num_open += 1
            self.most_open = max(self.most_open, self.num_open)
            answer = self.script.pop(0) if self.script else self.otherwise
        try:
            status, headers, content = answer(body) if callable(answer) else answer
        finally:
            with self.lock:
                self.num_open -= 1
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    @contextmanager
    def running(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                try:
                    server.reply(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        with Quiet(("127.0.0.1", 0), Handler) as http:
            thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            self.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
            yield self
            http.shutdown()
            thread.join()

    def endpoint(self, **options):
        """An endpoint that does not really wait, and remembers how long it would have."""
        self.pauses, self.told = [], []
        return Endpoint(url=self.url, model="toy", **{"wait": self.pauses.append, "tell": self.told.append} | options)


def moving(colour, length=14, size=(32, 48)):
    """[length, 32, 48, 3] a bright square that wanders over a plain background."""
    images = np.empty((length, *size, 3), np.uint8)
    images[:] = colour
    for row in range(length):
        column = 2 + 2 * row
        images[row, 8:20, column : column + 10] = 255
    return images


def still(colour, length=14, size=(32, 48)):
    """[length, 32, 48, 3] the same picture every time, but for noise."""
    noise = np.random.default_rng(0).integers(-3, 4, (length, *size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def record_dataset(root: Path, kinds: str = "mmmsm") -> LeRobotDataset:
    """One episode per letter: m moves in front and is still at the wrist, w moves in both, s is still in both."""
    schema = DatasetSchema(
        fps=10,
        robot_type="toy",
        state_names=("a",),
        action_names=("a",),
        image_sizes={"front": (32, 48), "wrist": (32, 48)},
    )
    front, wrist = {"m": moving, "w": moving, "s": still}, {"m": still, "w": moving, "s": still}
    with DatasetWriter(root, schema) as writer:
        for number, kind in enumerate(kinds):
            colour = COLOURS[number % len(COLOURS)]
            writer.add_episode(
                Episode(
                    images={"front": front[kind](colour), "wrist": wrist[kind](colour)},
                    state=np.full((14, 1), number, np.float32),
                    action=np.full((14, 1), number, np.float32),
                    task=("move the block", "do the task")[number % 2],
                )
            )
    return LeRobotDataset(root)
