"""The LeRobot plugin against a small stand-in for LeRobot and for the client of a server.

`plugins/lerobot_policy_molmoact2/check.sh` runs it in a real LeRobot against a real server.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from molmoact2.client import ConnectionLostError, RefusedError, WrongQuestionError
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.types import ActionChunk, Observation
from molmoact2.wire.messages import RobotCard

HERE = Path(__file__).parent
PLUGIN = HERE.parents[1] / "plugins" / "lerobot_policy_molmoact2"
HORIZON, ROWS, WIDTH = 16, 12, 6
SIZE = (4, 5)


def card(**changes) -> RobotCard:
    robot = SO101_TABLETOP
    known = {
        "tag": robot.tag, "cameras": robot.cameras, "state_names": robot.state_names, "setup": robot.setup,
        "action_names": robot.action_names, "action_units": robot.action_units, "control_hz": robot.control_hz,
        "action_horizon": HORIZON, "n_action_steps": ROWS, "control_mode": robot.control_mode, "normalization": "x",
        "state_statistics": {}, "action_statistics": {},
    }  # fmt: skip
    return RobotCard(**{**known, **changes})


class FakeClient:
    """Plan n says n + row / 100 in every joint; it fails where `failures` say so."""

    made: list["FakeClient"]
    failures: list[Exception]
    card: RobotCard

    def __init__(self, url: str, **settings) -> None:
        self.url, self.settings = url, settings
        self.asked: list[tuple[Observation, dict]] = []
        self.resets: list[int | None] = []
        self.made.append(self)

    def robot(self, embodiment: str | None) -> RobotCard:
        assert embodiment in (None, self.card.tag)
        return self.card

    def reset(self, seed: int | None) -> None:
        self.resets.append(seed)

    def begin(self, observation: Observation, **options) -> Future[ActionChunk]:
        self.asked.append((observation, options))
        plan: Future[ActionChunk] = Future()
        if self.failures:
            plan.set_exception(self.failures.pop(0))
        else:
            values = len(self.asked) + np.arange(ROWS)[:, None] / 100
            plan.set_result(ActionChunk(actions=np.repeat(values, WIDTH, axis=1).astype(np.float32)))
        return plan


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The plugin's modules, with stand-ins for what they stand on."""
    monkeypatch.syspath_prepend(str(HERE / "fake_lerobot"))
    monkeypatch.syspath_prepend(str(PLUGIN))
    from lerobot_policy_molmoact2 import configuration_molmoact2, following, modeling_molmoact2

    FakeClient.made, FakeClient.failures, FakeClient.card = [], [], card()
    monkeypatch.setattr(modeling_molmoact2, "Client", FakeClient)
    yield SimpleNamespace(
        Config=configuration_molmoact2.MolmoAct2RemoteConfig,
        Policy=modeling_molmoact2.MolmoAct2RemotePolicy,
        pixels=modeling_molmoact2.pixels,
        following=following,
        modeling=modeling_molmoact2,
    )
    for name in [name for name in sys.modules if name.split(".")[0] in ("lerobot", "lerobot_policy_molmoact2")]:
        del sys.modules[name]


def features(_plugin, width: int = WIDTH, cameras: tuple[str, ...] = ("front", "wrist")) -> dict:
    from lerobot.configs.types import FeatureType, PolicyFeature

    images = {f"observation.images.{name}": PolicyFeature(FeatureType.VISUAL, (3, *SIZE)) for name in cameras}
    return {
        "input_features": {**images, "observation.state": PolicyFeature(FeatureType.STATE, (width,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (width,))},
    }


def make(plugin, dataset_meta: object = None, **settings):
    return plugin.Policy(plugin.Config(**{**features(plugin), **settings}), dataset_meta=dataset_meta)


def batch(robots: int = 1, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    images = {
        f"observation.images.{name}": torch.from_numpy(random.integers(0, 256, (robots, 3, *SIZE), np.uint8)) / 255
        for name in ("front", "wrist")
    }
    states = torch.from_numpy(random.normal(size=(robots, WIDTH)).astype(np.float32))
    return {**images, "observation.state": states, "task": [f"task {row}" for row in range(robots)]}


def plans(actions: list[torch.Tensor]) -> list[float]:
    return [round(float(action[0, 0]), 2) for action in actions]


def test_a_plan_is_played_row_by_row_and_the_next_one_asked_for_at_its_end(plugin):
    policy = make(plugin)
    actions = [policy.select_action(batch(seed=step)) for step in range(25)]
    assert all(action.shape == (1, WIDTH) and action.dtype == torch.float32 for action in actions)
    assert plans(actions) == [
        *[1 + row / 100 for row in range(12)], *[2 + row / 100 for row in range(12)], 3.0,
    ]  # fmt: skip
    (client,) = FakeClient.made
    assert len(client.asked) == 3
    assert all("committed" not in options for _, options in client.asked)


def test_ahead_of_its_end_the_next_plan_is_asked_for_with_what_is_committed(plugin):
    policy = make(plugin, ahead=4, think=True, num_steps=3, n_action_steps=12)
    actions = [policy.select_action(batch(seed=step)) for step in range(20)]
    assert plans(actions) == [*[1 + row / 100 for row in range(12)], *[2 + row / 100 for row in range(4, 12)]]
    (client,) = FakeClient.made
    (_, first), (seen, second), _ = client.asked
    assert first == {"embodiment": None, "think": True, "num_steps": 3, "num_action_steps": 12}
    committed = second.pop("committed")
    assert second == first
    assert committed.delay == 4
    np.testing.assert_allclose(committed.actions[:, 0], [1.08, 1.09, 1.10, 1.11])
    np.testing.assert_array_equal(seen.state, batch(seed=8)["observation.state"][0])


def test_images_are_what_the_camera_gave(plugin):
    policy, given = make(plugin, cameras={"wrist": "front", "front": "observation.images.wrist"}), batch()
    policy.select_action(given)
    ((seen, _),) = FakeClient.made[0].asked
    assert list(seen.images) == ["front", "wrist"]
    assert seen.instruction == "task 0"
    for name, other in (("front", "wrist"), ("wrist", "front")):
        exact = (given[f"observation.images.{other}"][0] * 255).round().to(torch.uint8).permute(1, 2, 0)
        assert seen.images[name].dtype == np.uint8
        np.testing.assert_array_equal(seen.images[name], exact)


def test_every_uint8_survives_the_way_through_floats(plugin):
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[:, None]
    np.testing.assert_array_equal(plugin.pixels(values.float() / 255, "x")[0, :, 0], np.arange(256))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 4, 5, dtype=torch.uint8), r"floating point \[3, height, width\], got torch.uint8"),
        (torch.zeros(4, 5, 3), r"got torch.float32 \[4, 5, 3\]"),
        (torch.full((3, 4, 5), 1.5), r"in \[0, 1\]"),
        (torch.full((3, 4, 5), float("nan")), r"in \[0, 1\]"),
    ],
)
def test_other_images_are_refused(plugin, image: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        plugin.pixels(image, "front")


def test_every_robot_of_a_batch_has_a_session(plugin):
    policy = make(plugin, seed=5)
    action = policy.select_action(batch(robots=3))
    assert action.shape == (3, WIDTH)
    assert [client.resets for client in FakeClient.made] == [[5], [6], [7]]
    assert [client.asked[0][0].instruction for client in FakeClient.made] == ["task 0", "task 1", "task 2"]
    policy.reset()
    assert [client.resets for client in FakeClient.made] == [[5, 5], [6, 6], [7, 7]]
    policy.select_action(batch())
    assert len(FakeClient.made[0].asked) == 2  # the plan of the episode before is forgotten


def test_a_robot_without_its_server_holds_and_goes_on(plugin):
    policy = make(plugin)
    last = [policy.select_action(batch()) for _ in range(12)][-1]
    FakeClient.failures = [ConnectionLostError("gone"), RefusedError("held", "an operator holds it")]
    for _ in range(2):
        assert torch.equal(policy.select_action(batch()), last)
    assert plans([policy.select_action(batch())]) == [4.0]


def test_holding_ends_when_patience_does(plugin, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(plugin.modeling.time, "monotonic", lambda: now[0])
    policy = make(plugin, patience_s=5.0)
    for _ in range(12):
        policy.select_action(batch())
    FakeClient.failures = [ConnectionLostError("gone") for _ in range(3)]
    policy.select_action(batch())
    now[0] += 4.9
    policy.select_action(batch())
    now[0] += 0.2
    with pytest.raises(ConnectionLostError):
        policy.select_action(batch())


@pytest.mark.parametrize(
    ("control_mode", "steps", "error"),
    [
        ("absolute joint pose", 0, ConnectionLostError("before the first command")),
        ("absolute joint pose", 12, WrongQuestionError("unfit", "no such camera")),
        ("delta end-effector pose", 12, ConnectionLostError("a movement is not repeated")),
    ],
)
def test_what_cannot_be_held_is_raised(plugin, control_mode: str, steps: int, error: Exception):
    FakeClient.card = card(control_mode=control_mode)
    policy = make(plugin)
    for _ in range(steps):
        policy.select_action(batch())
    FakeClient.failures = [error]
    with pytest.raises(type(error)):
        policy.select_action(batch())


def test_a_whole_plan_with_what_is_left_of_the_one_before(plugin):
    policy = make(plugin)
    chunk = policy.predict_action_chunk(batch(robots=2))
    assert chunk.shape == (2, ROWS, WIDTH)
    left = torch.arange(7.0)[:, None].expand(7, WIDTH)
    policy.predict_action_chunk(batch(), prev_chunk_left_over=left, inference_delay=3, execution_horizon=5)
    committed = FakeClient.made[0].asked[-1][1]["committed"]
    assert committed.delay == 3
    np.testing.assert_array_equal(committed.actions, left[:5])
    assert "committed" not in policy.options


def test_the_old_calibration_is_taken_there_and_back(plugin):
    policy = make(plugin, calibration="old", ahead=2)
    actions = [policy.select_action(batch()) for _ in range(11)]
    (seen, _), (_, options) = FakeClient.made[0].asked
    state = batch()["observation.state"][0].numpy()
    np.testing.assert_allclose(seen.state, state * [1, -1, 1, 1, 1, 1] + [0, 90, 90, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(actions[0][0], [1, 89, -89, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(options["committed"].actions[:, 1], [1.10, 1.11], rtol=1e-6)
    left = actions[0].expand(3, WIDTH)
    policy.predict_action_chunk(batch(), prev_chunk_left_over=left, inference_delay=1)
    np.testing.assert_allclose(FakeClient.made[0].asked[-1][1]["committed"].actions, np.ones((3, 6)), rtol=1e-5)


def test_nothing_can_be_trained(plugin):
    policy = make(plugin)
    for method in (policy.get_optim_params, policy.config.get_optimizer_preset, policy.config.get_scheduler_preset):
        with pytest.raises(NotImplementedError, match="molmoact2 finetune"):
            method()
    with pytest.raises(NotImplementedError, match="molmoact2 finetune"):
        policy.forward(batch())


def test_a_token_comes_from_a_file(plugin, tmp_path: Path):
    (tmp_path / "token").write_text("a-secret-of-some-length\n")
    make(plugin, token_file=str(tmp_path / "token"), server="ws://arm:1", jpeg_quality=90, timeout_s=2.0)
    assert FakeClient.made[0].url == "ws://arm:1"
    assert FakeClient.made[0].settings == {"token": "a-secret-of-some-length", "jpeg_quality": 90, "timeout_s": 2.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ahead": -1}, "ahead counts rows"),
        ({"ahead": 12}, "ahead must be less than the 12 rows of a plan"),
        ({"patience_s": -1.0}, "patience_s must be 0 or more"),
        ({"calibration": "newest"}, "calibration must be one of new, old, got 'newest'"),
        ({"cameras": {"front": "a", "side": "b"}}, "which are front, wrist; got front, side"),
        ({"cameras": {"front": "a"}}, "which are front, wrist; got front"),
        ({"input_features": {}}, "missing here: VISUAL, STATE"),
    ],
)
def test_settings_that_do_not_fit_are_refused(plugin, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make(plugin, **settings)


def test_another_robot_is_refused(plugin):
    with pytest.raises(ValueError, match=r"observation\.state of 'so101_tabletop' has 6 numbers"):
        make(plugin, **features(plugin, width=7))
    swapped = [f"{name}.pos" for name in reversed(SO101_TABLETOP.state_names)]
    described = SimpleNamespace(fps=15, features={"observation.state": {"names": swapped}})
    with pytest.raises(ValueError, match=r"in this order, but LeRobot's robot or dataset has gripper\.pos"):
        make(plugin, dataset_meta=described)
    same = [f"{name}.pos" for name in SO101_TABLETOP.state_names]
    make(plugin, dataset_meta=SimpleNamespace(fps=15, features={"observation.state": {"names": same}}))
    with pytest.raises(ValueError, match=r"has 15 rows a second, and LeRobot would play 30. Give --dataset\.fps=15"):
        make(plugin, dataset_meta=SimpleNamespace(fps=30, features={}))


def test_a_camera_that_is_not_there_is_named(plugin):
    policy = make(plugin, cameras={"front": "top", "wrist": "wrist"})
    with pytest.raises(ValueError, match=r"sees observation.images.top, observation.images.wrist; LeRobot gives"):
        policy.select_action(batch())


def test_the_released_arm_checkpoint_leaves_nothing_to_guess(plugin):
    FakeClient.card = card(tag="so100_so101_molmoact2", cameras=())
    with pytest.raises(ValueError, match="takes any cameras, so say which"):
        make(plugin, calibration="old")
    with pytest.raises(ValueError, match=r"--policy\.calibration=old or new"):
        make(plugin, cameras={"first": "front", "second": "wrist"})
    policy = make(plugin, cameras={"second": "wrist", "first": "front"}, calibration="old")
    policy.select_action(batch())
    assert list(FakeClient.made[-1].asked[0][0].images) == ["second", "first"]


def test_a_calibration_is_for_arms_of_six_joints(plugin):
    FakeClient.card = card(state_names=("a",) * 7, action_names=("a",) * 7)
    with pytest.raises(ValueError, match="calibration is for arms of 6 joints"):
        make(plugin, calibration="old", **features(plugin, width=7))
