"""From the first second of a server to its last: not ready, ready, measured, told to go, gone."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from live_server import live_server, wait_until
from prometheus_client.parser import text_string_to_metric_families
from served_policies import Scripted, question, tiny_policy
from websockets.exceptions import ConnectionClosed

from molmoact2.cli.serve import Serve, announce, read_token
from molmoact2.inference import MolmoAct2Policy
from molmoact2.serving.engine import Engine, EngineSettings
from molmoact2.serving.settings import ServerSettings
from molmoact2.testing import tiny_checkpoint
from molmoact2.wire.messages import Answer, Refusal


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> MolmoAct2Policy:
    return tiny_policy(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture
def scripted(tiny: MolmoAct2Policy) -> Scripted:
    return Scripted(tiny)


def test_it_is_alive_at_once_and_ready_when_it_is_warm(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    warm = threading.Event()
    monkeypatch.setattr("molmoact2.serving.engine.warm_up", lambda *_: warm.wait(30))
    with live_server(scripted, wait=False) as server, server.http() as client, server.robot() as robot:
        assert client.get("/health").status_code == 200
        assert client.get("/ready").status_code == 503
        refusal = robot.ask(question())
        assert isinstance(refusal, Refusal)
        assert refusal.code == "busy"
        warm.set()
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert isinstance(robot.ask(question()), Answer)


def test_warming_up_asks_once_for_every_robot_and_mode(tiny: MolmoAct2Policy, tmp_path: Path):
    asked: list[tuple] = []

    class Curious(Scripted):
        def act(self, observation, embodiment=None, **options):  # type: ignore[override]
            asked.append((embodiment, options["mode"], len(observation.images)))
            return super().act(observation, embodiment, **options)

    many = tiny_policy(tmp_path / "many", "so101_tabletop", "franka_droid")
    with live_server(Curious(many)):
        assert asked == [("so101_tabletop", "continuous", 2), ("franka_droid", "continuous", 3)]
    asked.clear()
    assert tiny.embodiments == ("so101_tabletop",)


def test_a_server_whose_warm_up_fails_ends_and_says_why(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr("molmoact2.serving.engine.warm_up", broken)
    with live_server(scripted, wait=False) as server:
        wait_until(lambda: server.engine.state == "broken")
    with pytest.raises(RuntimeError, match="no memory"):
        server.engine.raise_if_broken()


def test_a_server_that_is_told_to_go_finishes_what_runs_and_says_goodbye(scripted: Scripted):
    with live_server(scripted) as server, server.robot() as robot, server.robot() as waiting:
        scripted.gate.clear()
        robot.say(question())
        assert scripted.begun.acquire(timeout=30)
        waiting.say(question())
        wait_until(lambda: server.engine.num_waiting)
        server.server.should_exit = True
        refusal = waiting.hear()
        assert isinstance(refusal, Refusal)
        assert "shutting down" in refusal.message
        with server.http() as client:
            assert client.get("/ready").status_code == 503
        scripted.gate.set()
        assert isinstance(robot.hear(), Answer)
        with pytest.raises(ConnectionClosed):
            robot.hear()
        assert robot.websocket.close_code == 1012, "the client is told that it may come back"


def test_metrics_count_what_happened(scripted: Scripted):
    with live_server(scripted, taken_on=EngineSettings(max_batch=2)) as server, server.http() as client:
        with server.robot() as robot:
            for number in range(3):
                robot.ask(question(number))
            robot.ask(question(embodiment="panda"))
            robot.websocket.send(b"\xc1")
            robot.hear()
        client.post("/act", content=b"{")
        text = client.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["molmoact2_answers_total", "molmoact2"] == 3
    assert samples["molmoact2_refusals_total", "molmoact2", "unfit"] == 1
    assert samples["molmoact2_refusals_total", "malformed", "molmoact2"] == 1
    assert samples["molmoact2_refusals_total", "act", "malformed"] == 1
    assert samples["molmoact2_sense_to_act_seconds_count", "molmoact2"] == 3
    assert samples["molmoact2_sense_to_act_seconds_bucket", "+Inf", "molmoact2"] == 3
    assert samples["molmoact2_inference_seconds_count", "so101_tabletop"] == 3
    assert samples["molmoact2_batch_size_sum",] == samples["molmoact2_batch_size_count",] == 3
    assert samples["molmoact2_worker_busy_seconds_total",] > 0
    assert samples["molmoact2_ready",] == samples["molmoact2_sessions",] == 1
    assert samples["molmoact2_queue_length",] == samples["molmoact2_stale_chunks_total",] == 0


def test_two_servers_in_one_process_count_apart(scripted: Scripted):
    with live_server(scripted) as one, live_server(scripted) as other:
        with one.robot() as robot:
            robot.ask(question())
        with other.http() as client:
            assert 'answers_total{dialect="molmoact2"}' not in client.get("/metrics").text


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.slow)],
)
def test_the_command_serves_records_and_ends_well(tmp_path: Path, number: signal.Signals):
    tiny_checkpoint(tmp_path / "checkpoint")
    script = "import sys; from molmoact2.cli.main import main; main(sys.argv[1:])"
    words = ["serve", "checkpoint", "--port", "0", "--record", "flights", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        (tmp_path / "errors").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", script, *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(number)
        output = process.stdout.read()
        assert process.wait(60) == 0
    assert (tmp_path / "errors").read_text() == ""
    assert first.startswith("Serving checkpoint")
    for line in ("without a token", "/act", "/openpi", "/harness", "/metrics", "dashboard"):
        assert line in output
    assert any((tmp_path / "flights").iterdir())


def test_a_token_is_read_from_its_file(tmp_path: Path):
    (tmp_path / "token").write_text("sixteen letters and more\n")
    assert read_token(tmp_path / "token") == "sixteen letters and more"
    assert read_token(None) is None
    with pytest.raises(ValueError, match="No token"):
        read_token(tmp_path / "none")
    (tmp_path / "token").write_text("short")
    short = Serve(checkpoint="nano-so101", token_file=tmp_path / "token")
    with pytest.raises(ValueError, match="16"):
        short.run()


def test_a_token_that_was_made_is_told_once_and_others_are_not(scripted: Scripted, capsys: pytest.CaptureFixture[str]):
    engine = Engine(scripted)
    open_to_all = ServerSettings(host="0.0.0.0", token="sixteen letters and more")
    announce("tiny", engine, open_to_all, port=8000, token=None)
    assert "sixteen" not in capsys.readouterr().out
    announce("tiny", engine, open_to_all, port=8000, token=open_to_all.token)
    assert "sixteen letters and more" in capsys.readouterr().out
