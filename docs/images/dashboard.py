"""Draws dashboard.png and dashboard-phone.png: the dashboard while the bundled nano-think drives the simulated SO-101.

    python docs/images/dashboard.py [--folder docs/images]

A real server, a simulated arm that talks to it over a websocket, and Chromium, all on this computer.
"""

import asyncio
import io
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect

from molmoact2.envs.so101 import So101Env
from molmoact2.inference import load_policy
from molmoact2.serving.app import build_app
from molmoact2.serving.engine import Engine
from molmoact2.serving.run import PolicyServer
from molmoact2.serving.settings import ServerSettings
from molmoact2.types import Outcome
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Ask, Hello, Telemetry

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAPTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
MOST_BYTES = 400_000
NOTES = {3: ("shoulder_lift is slowed to 120 °/s",), 8: ("wrist_flex is kept within its limit of 95°",)}
"""Number of a look -> what a guard might say then."""
ROWS = 8
"""Of a plan that are executed before the next look."""
TICKS_PER_TELEMETRY = 5


class Arm(threading.Thread):
    """A simulated arm in real time; stands in for `molmoact2 run`, in as few lines as it takes."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.address, self.is_on = f"ws://127.0.0.1:{port}/v1", True
        self.world = So101Env(image_size=(256, 256), max_steps=10**9)
        self.ticks: deque[tuple[float, np.ndarray, np.ndarray]] = deque()

    def run(self) -> None:
        with connect(self.address, max_size=None) as line:
            line.send(encode(Hello(client="simulated arm")))
            decode(line.recv(), Limits())
            number, tasks = 0, ("plate", "pick", "push")
            while self.is_on:
                self.world.reset(seed=7 + number, task=tasks[number % 3])
                self.episode(line, number)
                number += 1

    def episode(self, line, number: int) -> None:
        outcome, look = Outcome(), 0
        while not outcome.done and look < 16 and self.is_on:
            seen_at, seen = time.monotonic(), self.world.observe()
            ask = Ask(id=100 * number + look, observation=seen, observed_at=seen_at, think=True, num_action_steps=16)
            line.send(encode(ask))
            while not isinstance(answer := decode(line.recv(), Limits()), Answer):
                pass
            look += 1
            late = int((time.monotonic() - seen_at) * self.world.control_hz)
            for row in answer.actions[late:][:ROWS]:
                outcome = self.world.step(row)
                self.ticks.append((time.monotonic(), row, self.world.joint_state()))
                if len(self.ticks) >= TICKS_PER_TELEMETRY:
                    self.tell(line, NOTES.get(look, ()))
                time.sleep(1 / self.world.control_hz)

    def tell(self, line, notes: tuple[str, ...]) -> None:
        times, executed, measured = zip(*self.ticks, strict=True)
        self.ticks.clear()
        line.send(
            encode(
                Telemetry(
                    time=time.monotonic(),
                    mode="full",
                    executed=np.stack(executed).astype(np.float32),
                    measured=np.stack(measured).astype(np.float32),
                    times=np.array(times),
                    notes=notes,
                )
            )
        )


@contextmanager
def served() -> Iterator[int]:
    """The port of a server of nano-think with a dashboard."""
    engine, settings = Engine(load_policy("nano-think")), ServerSettings(port=0)
    server = PolicyServer(build_app(engine, settings, model="nano-think"), engine, settings)
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    while not server.started or engine.state == "starting":
        time.sleep(0.05)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def main(folder: Path) -> None:
    """Draw all of them."""
    with served() as port, sync_playwright() as playwright:
        arm = Arm(port)
        arm.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for name, size in (("dashboard", LAPTOP), ("dashboard-phone", PHONE)):
            page = browser.new_page(viewport=size, device_scale_factor=2 if size is PHONE else 1)
            page.on("console", lambda message: print(message.type, message.text))
            page.on("pageerror", lambda error: print(error))
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_timeout(9000)
            save(page.screenshot(), folder / f"{name}.png")
            page.close()
        arm.is_on = False
        arm.join()
        browser.close()


def save(data: bytes, path: Path) -> None:
    """Write a picture as small as PNG can."""
    Image.open(io.BytesIO(data)).convert("RGB").save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, path


if __name__ == "__main__":
    main(Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
