"""What a server adds to its policy, and what many robots get from one.

one robot     a policy in this process against the same policy behind a server in another, asked in turns by our own
              client with two raw images of 360 x 640 (target: at most 3 ms at the median); once with a policy that
              answers at once, where the server's own work is all there is
many robots   answers a second and latencies with 1, 4 and 16 robots that ask without a pause, one by one and together
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import torch

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from molmoact2.client import Client, RefusedError
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.serving.app import build_app
from molmoact2.serving.engine import Engine, EngineSettings
from molmoact2.serving.run import serve
from molmoact2.serving.settings import ServerSettings
from molmoact2.testing import fake_observation
from molmoact2.types import ActionChunk, Observation

POLICY = "nano-so101"
POLICIES = (("answers at once", True), (POLICY, False))
CAMERA_SIZE = (360, 640)
ROBOTS = (1, 4, 16)
BATCHES = (1, 8)
TURNS_PER_ROUND = 15


class Instant(MolmoAct2Policy):
    """Answers at once, whatever it is asked."""

    def act(self, observation, embodiment=None, **options):  # noqa: ARG002  # type: ignore[override]
        """Zeros."""
        chunk = ActionChunk(actions=np.zeros((12, 6), np.float32))
        return chunk if isinstance(observation, Observation) else [chunk] * len(observation)


def load(*, is_instant: bool) -> MolmoAct2Policy:
    """The bundled policy, or one that takes its place and no time."""
    policy = load_policy(POLICY)
    return Instant(model=policy.model, processor=policy.processor) if is_instant else policy


class Robot:
    """One that asks with our client."""

    def __init__(self, port: int) -> None:
        self.client = Client(f"ws://127.0.0.1:{port}")
        noise = np.random.default_rng(port)
        images = {name: noise.integers(0, 256, (*CAMERA_SIZE, 3), np.uint8) for name in SO101_TABLETOP.cameras}
        plain = fake_observation()
        self.observation = Observation(images=images, state=plain.state, instruction=plain.instruction)

    def act(self) -> None:
        """Ask once."""
        self.client.act(self.observation, seed=0)


def run_server(pipe: Connection, is_instant: bool, max_batch: int, threads: int) -> None:
    """Serve until SIGTERM, and tell the port."""
    torch.set_num_threads(threads)
    engine = Engine(load(is_instant=is_instant), settings=EngineSettings(max_batch=max_batch))
    settings = ServerSettings(port=0)
    serve(build_app(engine, settings), engine, settings, listening=pipe.send)


@contextmanager
def served(settings: Settings, *, is_instant: bool, max_batch: int = 8) -> Iterator[Callable[[], Robot]]:
    """A server in a process of its own; yields what connects to it."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, is_instant, max_batch, settings.threads)
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=arguments)
    process.start()
    port = ours.recv()
    try:
        robot = Robot(port)
        while not is_answered(robot):
            time.sleep(0.1)  # it is still warming up
        robot.client.close()
        yield lambda: Robot(port)
    finally:
        process.terminate()
        process.join()


def is_answered(robot: Robot) -> bool:
    """Whether the server is ready."""
    try:
        robot.act()
    except RefusedError:
        return False
    return True


def benchmark(settings: Settings) -> None:
    """Print both tables."""
    one_robot(settings)
    many_robots(settings)


def one_robot(settings: Settings) -> None:
    """A policy by itself and behind a server, in turns."""
    rows = []
    for name, is_instant in POLICIES[:1] if settings.smoke else POLICIES:
        policy = load(is_instant=is_instant)
        with served(settings, is_instant=is_instant) as new_robot:
            robot = new_robot()
            in_process, over_the_wire = [], []
            for _ in range(settings.rounds * TURNS_PER_ROUND):
                seconds = in_turns(
                    {"bare": lambda p=policy, r=robot: p.act(r.observation, seed=0), "served": robot.act},
                    Settings(repetitions=1, threads=settings.threads),
                )
                in_process.append(seconds["bare"])
                over_the_wire.append(seconds["served"])
            robot.client.close()
        bare, wire = statistics.median(in_process), statistics.median(over_the_wire)
        added = statistics.quantiles([w - b for w, b in zip(over_the_wire, in_process, strict=True)], n=10)
        cells = [milliseconds(bare), milliseconds(wire), milliseconds(added[4]), milliseconds(added[0])]
        rows.append([name, *cells, ratio(wire, bare)])
    columns = ["policy", "in process, ms", "served, ms", "added, ms", "added in the best tenth, ms", "served / bare"]
    print_table("One robot: what the server adds", columns, rows)


def many_robots(settings: Settings) -> None:
    """Robots that ask without a pause."""
    counts = ROBOTS[:2] if settings.smoke else ROBOTS
    rows = []
    for max_batch in BATCHES[1:] if settings.smoke else BATCHES:
        with served(settings, is_instant=False, max_batch=max_batch) as new_robot:
            rows += [[str(n), str(max_batch), *busy([new_robot() for _ in range(n)], settings)] for n in counts]
    columns = ["robots", "together at most", "answers / s", "median, ms", "95 %, ms"]
    print_table(f"Many robots: {POLICY}", columns, rows)


def busy(robots: Sequence[Robot], settings: Settings) -> list[str]:
    """Answers a second, and latencies, while all of them ask all the time."""

    def work(robot: Robot) -> list[float]:
        seconds = []
        for _ in range(settings.rounds + 1):
            begin = time.perf_counter()
            robot.act()
            seconds.append(time.perf_counter() - begin)
        return seconds

    begin = time.perf_counter()
    with ThreadPoolExecutor(len(robots)) as crowd:
        latencies = sorted(second for seconds in crowd.map(work, robots) for second in seconds)
    rate = len(latencies) / (time.perf_counter() - begin)
    for robot in robots:
        robot.client.close()
    worst = latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))]
    return [f"{rate:.1f}", milliseconds(statistics.median(latencies)), milliseconds(worst)]


if __name__ == "__main__":
    measure(benchmark, __doc__)
