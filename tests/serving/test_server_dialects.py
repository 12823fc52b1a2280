"""Clients of other projects, and our own protocol, against a real server.

The clients themselves are used where they are installed; what they send was also written down here, so that their
dialects are tested without them.
"""

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from live_server import LiveServer, live_server, wait_until
from PIL import Image
from served_policies import ROBOTS, Scripted, question, tiny_policy

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.inference import MolmoAct2Policy
from molmoact2.serving.desk import Desk
from molmoact2.serving.dialects.harness import HarnessConversation
from molmoact2.serving.engine import Engine, EngineSettings
from molmoact2.serving.security import Guard
from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.dialects import harness, json_numpy, openpi
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Control, Hello, Refusal, Reset, Telemetry, Welcome

LIMITS = Limits()
RNG = np.random.default_rng(0)
CAMERA = RNG.integers(0, 256, (48, 64, 3), np.uint8)
OTHER = RNG.integers(0, 256, (48, 64, 3), np.uint8)

DROID = {"external_cam": CAMERA, "wrist_cam": OTHER, "state": np.arange(8, dtype=np.float32), "instruction": "go"}
YAM = {"top_cam": CAMERA, "left_cam": OTHER, "right_cam": CAMERA, "state": np.zeros(14), "instruction": "fold"}
LIBERO = {"norm_tag": "libero", "image": CAMERA, "wrist_image": OTHER, "state": [0.5] * 8, "task": "open the drawer"}
OPENPI_DROID = {
    "embodiment": "franka_droid",
    "observation/exterior_image_1_left": CAMERA,
    "observation/wrist_image_left": OTHER,
    "observation/joint_position": np.arange(7, dtype=np.float64),
    "observation/gripper_position": np.array([7.0]),
    "prompt": "go",
}
HARNESS_LIBERO = {
    "embodiment": "libero",
    "images": {"agentview": CAMERA, "wrist": OTHER},
    "states": np.full(8, 0.5),
    "task_description": "open the drawer",
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> MolmoAct2Policy:
    return tiny_policy(tmp_path_factory.mktemp("many") / "checkpoint", *ROBOTS)


@pytest.fixture(scope="module")
def policy(real: MolmoAct2Policy) -> Scripted:
    return Scripted(real)


@pytest.fixture(scope="module")
def served(policy: Scripted) -> Iterator[LiveServer]:
    with live_server(policy) as server:
        yield server


@pytest.fixture(autouse=True)
def nobody_is_held(served: LiveServer) -> Iterator[None]:
    yield
    served.on_loop(lambda: served.engine.operator.command("*", "resume"))
    served.on_loop(lambda: served.engine.operator.instruct("*", None))


def act(served: LiveServer, body: Any) -> tuple[int, Any]:
    with served.http() as client:
        response = client.post("/act", content=json_numpy.dumps(body))
    return response.status_code, json_numpy.loads(response.content, LIMITS)


# ---- our own


def test_welcome_says_everything_that_a_robot_has_to_know(served: LiveServer, policy: Scripted):
    with served.robot() as robot:
        welcome = robot.welcome
    assert isinstance(welcome, Welcome)
    assert [card.tag for card in welcome.robots] == list(ROBOTS)
    droid, stats = welcome.robots[1], policy.processor.tag("franka_droid")
    assert droid.cameras == EMBODIMENTS["franka_droid"].cameras
    assert (droid.action_horizon, droid.n_action_steps, droid.control_hz) == (15, 15, 15.0)
    assert len(droid.state_statistics["q01"]) == stats.state.width == len(droid.state_names)
    assert len({card.normalization for card in welcome.robots}) == len(ROBOTS)
    with served.http() as client:
        assert client.get("/metadata").json()["robots"][1]["tag"] == "franka_droid"


def test_an_answer_echoes_what_the_question_said(served: LiveServer):
    with served.robot() as robot:
        answer = robot.ask(question(17, embodiment="so101_tabletop", observed_at=12.25, seed=6))
    assert isinstance(answer, Answer)
    assert (answer.id, answer.observed_at, answer.seed) == (17, 12.25, 6)
    assert {"queue", "inference", "total", "flow"} <= answer.timing.keys()
    np.testing.assert_allclose(answer.actions[0], question(17).observation.state, rtol=1e-6)


def test_a_session_goes_on_after_its_connection_broke_and_strangers_get_a_new_one(served: LiveServer):
    with served.robot() as robot:
        session = robot.welcome.session
    with served.robot(session=session) as again, served.robot(session="made up") as stranger:
        assert again.welcome.session == session
        assert stranger.welcome.session not in (session, "made up")


def test_what_is_not_a_question_is_refused_and_the_line_stays_open(served: LiveServer):
    with served.robot() as robot:
        for nonsense in (b"", b"\xc1", msgpack.packb({"type": "ask"}), "text"):
            robot.websocket.send(nonsense)
            refusal = robot.hear()
            assert isinstance(refusal, Refusal)
            assert refusal.code == "malformed"
        unfit = robot.ask(question(3))
        assert isinstance(unfit, Refusal)
        assert (unfit.code, unfit.id) == ("unfit", 3)
        assert isinstance(robot.ask(question(4, embodiment="so101_tabletop")), Answer)


def test_who_does_not_say_hello_is_sent_away(served: LiveServer):
    for first in (question(), Hello(client="old", protocol=99), Reset()):
        with served.websocket("/v1") as websocket:
            websocket.send(encode(first))
            refusal = decode(websocket.recv(timeout=30), LIMITS)  # type: ignore[arg-type]
            assert isinstance(refusal, Refusal)
            assert "Hello" in refusal.message


def test_an_operator_holds_instructs_and_resumes_a_robot(served: LiveServer):
    operator = served.engine.operator
    with served.robot() as robot:
        session = robot.welcome.session
        served.on_loop(lambda: operator.command(session, "hold"))
        assert robot.hear() == Control(command="hold")
        held = robot.ask(question(1, embodiment="so101_tabletop"))
        assert isinstance(held, Refusal)
        assert held.code == "held"
        served.on_loop(lambda: operator.command("*", "stop"))
        assert robot.hear() == Control(command="stop")
        served.on_loop(lambda: operator.command(session, "resume"))
        assert robot.hear() == Control(command="stop"), "everyone is still stopped"
        served.on_loop(lambda: operator.command("*", "resume"))
        assert robot.hear() == Control(command="resume")
        served.on_loop(lambda: operator.instruct(session, "wave instead"))
        assert robot.hear() == Control(instruction="wave instead")
        assert isinstance(robot.ask(question(2, embodiment="so101_tabletop")), Answer)
        with served.robot(session=session) as again:
            assert again.hear() == Control(instruction="wave instead"), "a robot that comes back is told"
    with pytest.raises(ValueError, match="Did you mean"):
        operator.command("*", "holt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="characters"):
        operator.instruct("*", " ")


def test_every_dialect_is_held_also_in_the_middle_of_a_chunk(served: LiveServer):
    with served.websocket("/harness") as websocket:
        ask = harness.pack(harness.Frame(type="observation", payload=HARNESS_LIBERO, seq=1))
        websocket.send(ask)
        assert harness.unpack(websocket.recv(timeout=30), LIMITS).type == "action"  # type: ignore[arg-type]
        served.on_loop(lambda: served.engine.operator.command("*", "hold"))
        websocket.send(ask)
        reply = harness.unpack(websocket.recv(timeout=30), LIMITS)  # type: ignore[arg-type]
        assert reply.type == "error"
        assert reply.payload["error"].startswith("held")
    assert act(served, DROID)[0] == 423
    with served.websocket("/openpi") as websocket:
        websocket.recv(timeout=30)
        websocket.send(openpi.pack(OPENPI_DROID))
        assert str(websocket.recv(timeout=30)).startswith("held")


def test_telemetry_reaches_who_watches(real: MolmoAct2Policy):
    heard: list[Telemetry] = []

    class Ear:
        def exchanged(self, exchange: object, /) -> None: ...
        def moved(self, _: str, telemetry: Telemetry, /) -> None:
            heard.append(telemetry)

        def failed(self, where: str, error_id: str, message: str, /) -> None: ...
        def ended(self, session: str, /) -> None: ...

    rows = np.zeros((2, 6), np.float32)
    telemetry = Telemetry(time=1.0, mode="full", executed=rows, measured=rows, times=np.array([0.0, 1.0]))
    with live_server(Scripted(real), watchers=[Ear()]) as server, server.robot() as robot:
        robot.say(telemetry)
        wait_until(lambda: heard)
        assert heard[0].mode == "full"


# ---- POST /act


@pytest.mark.parametrize(("body", "width"), [(DROID, 8), (YAM, 14)], ids=["DROID", "YAM"])
def test_droid_and_yam_clients_are_answered_field_for_field(served: LiveServer, body: dict, width: int):
    status, reply = act(served, {**body, "num_steps": 3, "timestamp": 1.0, "enable_cuda_graph": True})
    assert status == 200
    assert reply.keys() == {"actions", "dt_ms"}
    assert reply["actions"].dtype == np.float32
    assert reply["actions"].shape == (3, width)
    assert reply["dt_ms"] >= 0


def test_droid_is_asked_with_one_outside_view_as_its_own_server_does(served: LiveServer, policy: Scripted):
    exchanges: list[Any] = []
    policy_saw = policy.act

    def spy(observation, *arguments, **options):
        exchanges.append(observation)
        return policy_saw(observation, *arguments, **options)

    vars(policy)["act"] = spy
    try:
        assert act(served, DROID)[0] == 200
    finally:
        del vars(policy)["act"]
    ((observation,),) = exchanges
    assert isinstance(observation.images, list)
    np.testing.assert_array_equal(observation.images, [CAMERA, OTHER])


def test_serve_policy_clients_are_answered_in_their_words(served: LiveServer):
    status, reply = act(served, LIBERO)
    assert status == 200
    assert reply.keys() == {"style", "actions", "action_shape", "latency_ms"}
    assert reply["action_shape"] == [3, 7] == list(np.shape(reply["actions"]))
    _, kept = act(served, {**LIBERO, "session_id": "ep:1", "action_chunk": "true"})
    assert kept["inference_calls"] == 1
    singles = [act(served, {**LIBERO, "session_id": "ep:2", "single_action": True})[1] for _ in range(4)]
    assert [single["inference_calls"] for single in singles] == [1, 1, 1, 2]
    assert [single["action"][0] for single in singles] == [0.5, 1.5, 2.5, 0.5]
    with served.http() as client:
        assert client.post("/reset", content=b'{"prefix": "ep"}').json()["removed"] == 2


def test_images_come_by_list_by_name_and_as_data_urls(served: LiveServer):
    buffer = io.BytesIO()
    Image.fromarray(CAMERA).save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    rest = {name: value for name, value in LIBERO.items() if "image" not in name}
    for images in ([url, OTHER], {"image": CAMERA, "wrist_image": url}):
        assert act(served, {**rest, "images": images})[0] == 200
    wrapped = {"encoded": json_numpy.dumps(LIBERO).decode()}
    assert act(served, wrapped)[0] == 200


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"external_cam": "/etc/passwd"}, "array"),
        ({"external_cam": CAMERA.astype(np.float32) / 255}, "uint8"),
        ({"external_cam": None}, "array"),
        ({"state": np.zeros(7, np.float32)}, "8 numbers"),
        ({"state": np.full(8, np.nan, np.float32)}, "finite"),
        ({"state": "zeros"}, "numbers"),
        ({"instruction": ""}, "instruction"),
        ({"instruction": 7}, "instruction"),
        ({"num_steps": "ten"}, "num_steps"),
        ({"num_steps": 10**6}, "64"),
        ({"n_obs_steps": 2}, "n_obs_steps"),
        ({"single_action": "perhaps"}, "single_action"),
        ({"session_id": 5}, "session_id"),
        ({"prompt": "stop"}, "once"),
        ({"norm_tag": "panda"}, "panda"),
        ({"norm_tag": "libero"}, "wrist_image"),
        ({"images": [CAMERA]}, "3 images"),
    ],
)
def test_what_is_wrong_in_a_request_is_a_400_with_advice(served: LiveServer, change: dict, word: str):
    status, reply = act(served, DROID | change)
    assert status == 400, reply
    assert word in reply["error"]


def test_unknown_fields_are_reported_and_missing_ones_refused(served: LiveServer):
    assert act(served, {**DROID, "gripper_cam": CAMERA, "speed": 2})[1]["ignored"] == ["gripper_cam", "speed"]
    without = {name: value for name, value in LIBERO.items() if name != "wrist_image"}
    status, reply = act(served, without)
    assert status == 400
    assert "observation/wrist_image" in reply["error"], "the names that would have been understood"
    twice = act(served, {**LIBERO, "agentview": CAMERA})
    assert twice[0] == 400


def test_act_says_what_it_serves(served: LiveServer):
    with served.http() as client:
        about = client.get("/act").json()
        assert about["repo_id"] == "tiny"
        assert about["state_dim"] == 6
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.post("/act", content=b"not json").status_code == 400
        assert client.post("/act", content=b"[]").status_code == 400
        assert client.post("/reset", content=b"{").status_code == 400


def test_a_busy_server_says_when_to_come_back(real: MolmoAct2Policy):
    slow = Scripted(real)
    with (
        live_server(slow, taken_on=EngineSettings(queue=1)) as server,
        server.robot() as first,
        server.robot() as next_,
    ):
        slow.gate.clear()
        first.say(question(embodiment="so101_tabletop"))
        assert slow.begun.acquire(timeout=30)
        next_.say(question(embodiment="so101_tabletop"))
        wait_until(lambda: server.engine.num_waiting)
        with server.http() as client:
            response = client.post("/act", content=json_numpy.dumps(DROID))
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        slow.gate.set()
        assert isinstance(first.hear(), Answer)
        assert isinstance(next_.hear(), Answer)


# ---- openpi


def test_openpi_frames_as_its_client_sends_them(served: LiveServer):
    with served.websocket("/") as websocket:
        metadata = openpi.unpack(websocket.recv(timeout=30), LIMITS)  # type: ignore[arg-type]
        assert metadata["robots"]["libero"]["cameras"] == ["image", "wrist_image"]
        for turn in range(2):
            websocket.send(openpi.pack(OPENPI_DROID))
            reply = openpi.unpack(websocket.recv(timeout=30), LIMITS)  # type: ignore[arg-type]
            assert reply["actions"].shape == (3, 8)
            np.testing.assert_array_equal(reply["actions"][0], np.arange(8))
            assert ("prev_total_ms" in reply["server_timing"]) == bool(turn)
        websocket.send(b"\xc1")
        assert isinstance(websocket.recv(timeout=30), str), "errors are text, which its client raises"
        websocket.send(openpi.pack(OPENPI_DROID))
        assert isinstance(websocket.recv(timeout=30), bytes)


def test_the_openpi_client_works_unchanged(served: LiveServer):
    client_module = pytest.importorskip("openpi_client.websocket_client_policy")
    for path in ("", "/openpi"):
        client = client_module.WebsocketClientPolicy(f"ws://{served.address}{path}")
        assert client.get_server_metadata()["model"] == "tiny"
        reply = client.infer(OPENPI_DROID)
        np.testing.assert_array_equal(reply["actions"][0], np.arange(8))
        with pytest.raises(RuntimeError, match="unfit"):
            client.infer({**OPENPI_DROID, "embodiment": "panda"})
        client.reset()
        client._ws.close()


# ---- vla-evaluation-harness


def test_harness_frames_as_its_client_sends_them(served: LiveServer):
    with served.websocket("/") as websocket:

        def say(kind: harness.FrameType, payload: dict[str, Any], seq: int) -> harness.Frame:
            websocket.send(harness.pack(harness.Frame(type=kind, payload=payload, seq=seq)))
            return harness.unpack(websocket.recv(timeout=30), LIMITS)  # type: ignore[arg-type]

        hello = say("hello", {"harness_version": "0.8", "protocol_version": 1}, 1)
        assert (hello.type, hello.seq, hello.payload["protocol_version"]) == ("hello", 1, 1)
        start = harness.Frame(type="episode_start", payload={"recording": {"db_path": "/tmp/theirs.db"}}, seq=2)
        websocket.send(harness.pack(start))
        rows = [say("observation", HARNESS_LIBERO, seq).payload["actions"] for seq in range(3, 7)]
        assert [row.tolist() for row in rows] == [[value] * 7 for value in (0.5, 1.5, 2.5, 0.5)]
        websocket.send(harness.pack(harness.Frame(type="episode_end", payload={}, seq=7)))
        assert say("observation", HARNESS_LIBERO, 8).payload["actions"][0] == 0.5, "the rest of the old chunk is gone"
        for wrong in ({**HARNESS_LIBERO, "images": 3}, {"images": {}}, {**HARNESS_LIBERO, "embodiment": "panda"}):
            websocket.send(harness.pack(harness.Frame(type="episode_start", payload={}, seq=9)))
            error = say("observation", wrong, 10)
            assert (error.type, error.seq) == ("error", 10)
        assert say("hello", {"protocol_version": 2}, 11).type == "error"


def test_the_harness_client_works_unchanged(served: LiveServer):
    connection = pytest.importorskip("vla_eval.connection")

    async def episode(path: str) -> list[Any]:
        async with connection.Connection(f"ws://{served.address}{path}") as client:
            await client.start_episode({"task": {"name": "open"}})
            actions = [(await client.act(HARNESS_LIBERO))["actions"] for _ in range(4)]
            await client.end_episode({"success": False})
            assert client.server_info["model_server"] == "tiny"
            return actions

    for path in ("", "/harness"):
        assert [row[0] for row in asyncio.run(episode(path))] == [0.5, 1.5, 2.5, 0.5]


def test_a_server_for_libero_tells_the_benchmark_what_to_send(real: MolmoAct2Policy):
    only = Engine(Scripted(real), embodiment="libero")
    guard = Guard(ServerSettings())
    session = only.sessions.open(client="a test", dialect="none")
    conversation = HarnessConversation(Desk(engine=only, guard=guard, model="tiny", revision=None), session)
    params = conversation.hello({"protocol_version": 1})["observation_params"]
    assert params == {"send_wrist_image": True, "send_state": True}
