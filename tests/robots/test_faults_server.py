"""A server that is killed while it moves the simulated arm, in real time and over a real socket."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from molmoact2.client import Client
from molmoact2.control.clock import WallClock
from molmoact2.envs.so101 import So101Env
from molmoact2.evaluation.live_planners import Asking, server_source
from molmoact2.robots.simulated import SimulatedSo101
from swinging import Diary, make_loop

BOOT = "from molmoact2.cli.main import main; main(['serve', 'nano-so101', '--port', '0', '--threads', '1'])"


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-c", BOOT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        url = next(found.group() for line in process.stdout if (found := re.search(r"ws://[\d.]+:\d+", line)))
        yield process, url
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "silent"])
def test_the_arm_holds_still_when_its_server_is_gone(server: tuple[subprocess.Popen[str], str], how: signal.Signals):
    process, url = server
    environment = So101Env()
    arm = SimulatedSo101(environment, WallClock())
    arm.begin(task="pick", seed=1_000_001)
    diary = Diary()
    with Client(url, timeout_s=2.0) as client:
        source = server_source(client, arm.embodiment, arm.clock, Asking(added_latency_s=0.1))
        loop = make_loop(arm, source.start(0), diary)
        struck: list[float] = []

        def is_over() -> str | None:
            if not struck and len(diary.plans) == 3:
                process.send_signal(how)
                struck.append(arm.clock.now())
            return "seen enough" if struck and arm.clock.now() > struck[0] + 5 else None

        loop.run(arm.instruction, is_over)
    states = np.array([tick.reading.state for tick in diary.ticks if tick.reading])
    assert np.ptp(states[: len(states) // 2], axis=0).max() > 10, "it moved"
    assert np.ptp(states[-10:], axis=0)[:5].max() < 0.5, "it stands still"
    assert np.degrees(np.abs(environment.data.qvel[:5])).max() < 1
    assert "There is no plan" in diary.text
    environment.close()
