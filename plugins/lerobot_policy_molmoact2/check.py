"""The plugin inside a real LeRobot, against a running policy server: `check.sh` sets both up and runs this.

found      LeRobot's tools find the plugin, and their command line makes its configuration
equal      actions through LeRobot are those of the server asked directly, bit by bit
saved      --policy.path finds the policy again
recorded   lerobot-record moves a made-up arm with it, and its dataset holds the actions
evaluated  lerobot-eval's rollout moves two made-up arms at once
"""

import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import draccus
import gymnasium
import lerobot
import numpy as np
import pandas
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from lerobot.robots import Robot, RobotConfig
from lerobot.scripts.lerobot_eval import rollout
from lerobot.scripts.lerobot_record import RecordConfig, record
from lerobot.utils.control_utils import predict_action
from lerobot.utils.import_utils import register_third_party_plugins

from molmoact2.client import Client
from molmoact2.types import Committed, Observation

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = ("front", "wrist")
TASK = "pick up the red cube"
SIZE = (96, 128)
ROWS, AHEAD, SEED = 12, 4, 5
TAKEN = (ROWS, ROWS - AHEAD, ROWS - AHEAD)
"""Steps that each of the first plans is good for."""


@RobotConfig.register_subclass("made_up_arm")
@dataclass(kw_only=True)
class MadeUpArmConfig(RobotConfig):
    """An arm without motors."""


class MadeUpArm(Robot):
    """It is wherever it was told to be, and its cameras see noise."""

    config_class = MadeUpArmConfig
    name = "made_up_arm"
    sent: list[np.ndarray] = []  # noqa: RUF012 (all arms of this check)

    def __init__(self, config: MadeUpArmConfig) -> None:
        super().__init__(config)
        self.connected, self.cameras, self.state = False, {}, np.zeros(len(JOINTS), np.float32)

    @property
    def observation_features(self) -> dict:
        return {f"{joint}.pos": float for joint in JOINTS} | dict.fromkeys(CAMERAS, (*SIZE, 3))

    @property
    def action_features(self) -> dict:
        return {f"{joint}.pos": float for joint in JOINTS}

    @property
    def is_connected(self) -> bool:
        return self.connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:  # noqa: ARG002 (LeRobot's words)
        self.connected = True

    def calibrate(self) -> None:
        """Nothing to calibrate."""

    def configure(self) -> None:
        """Nothing to configure."""

    def get_observation(self) -> dict:
        images, _ = noise(len(self.sent))
        return {f"{joint}.pos": float(angle) for joint, angle in zip(JOINTS, self.state, strict=True)} | images

    def send_action(self, action: dict) -> dict:
        self.state = np.array([action[f"{joint}.pos"] for joint in JOINTS], np.float32)
        self.sent.append(self.state)
        return action

    def disconnect(self) -> None:
        self.connected = False


class MadeUpEnvironment(gymnasium.Env):
    """An arm that sees noise, for the rollout of lerobot-eval."""

    observation_space = gymnasium.spaces.Dict(
        {
            "pixels": gymnasium.spaces.Dict(
                {camera: gymnasium.spaces.Box(0, 255, (*SIZE, 3), np.uint8) for camera in CAMERAS}
            ),
            "agent_pos": gymnasium.spaces.Box(-200, 200, (len(JOINTS),), np.float64),
        }
    )
    action_space = gymnasium.spaces.Box(-200, 200, (len(JOINTS),), np.float32)
    _max_episode_steps = 20
    task_description = task = TASK

    def look(self) -> dict:
        images, state = noise(self.steps)
        return {"pixels": images, "agent_pos": state.astype(np.float64)}

    def reset(self, **_: object) -> tuple[dict, dict]:
        self.steps = 0
        return self.look(), {}

    def step(self, _action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.steps += 1
        return self.look(), 0.0, False, False, {"is_success": False}


def noise(step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the cameras see and where the joints are at a step."""
    random = np.random.default_rng(step)
    images = {camera: random.integers(0, 256, (*SIZE, 3), np.uint8) for camera in CAMERAS}
    return images, random.uniform(-20, 20, len(JOINTS)).astype(np.float32)


def options(server: str) -> list[str]:
    """Of the policy, as on the command line."""
    return [
        "--policy.type=molmoact2_remote",
        f"--policy.server={server}",
        '--policy.cameras={"front": "front", "wrist": "wrist"}',
        f"--policy.n_action_steps={ROWS}",
        f"--policy.ahead={AHEAD}",
        f"--policy.seed={SEED}",
    ]


def recording(folder: Path, policy: list[str]) -> list[str]:
    """Command line of lerobot-record."""
    return [
        "--robot.type=made_up_arm", f"--robot.calibration_dir={folder}", "--dataset.repo_id=check/eval_plugin",
        f"--dataset.root={folder / 'dataset'}", f"--dataset.single_task={TASK}", "--dataset.fps=15",
        "--dataset.episode_time_s=3", "--dataset.reset_time_s=0", "--dataset.num_episodes=1", "--dataset.vcodec=h264",
        "--dataset.push_to_hub=false", "--play_sounds=false", *policy,
    ]  # fmt: skip


def asked_directly(server: str, seed: int, num_steps: int) -> np.ndarray:
    """The actions [steps, action_dim] of the server itself, asked as the plugin asks."""
    with Client(server) as client:
        client.reset(seed)
        actions, left = [], np.zeros((0, len(JOINTS)), np.float32)
        while len(actions) < num_steps:
            images, state = noise(len(actions))
            observation = Observation(images=images, state=state, instruction=TASK)
            committed = {"committed": Committed(actions=left, delay=len(left))} if len(left) else {}
            plan = client.act(observation, num_action_steps=ROWS, **committed).actions[len(left) :]
            actions += [*left, *plan[: len(plan) - AHEAD]]
            left = plan[-AHEAD:]
        return np.array(actions[:num_steps], np.float32)


def through_lerobot(config: PreTrainedConfig, dataset: LeRobotDataset, num_steps: int) -> np.ndarray:
    """The same through LeRobot's factories, its processors and its predict_action."""
    policy = make_policy(config, ds_meta=dataset.meta)
    before, after = make_pre_post_processors(
        config,
        config.pretrained_path,
        dataset_stats=dataset.meta.stats,
        preprocessor_overrides={
            "device_processor": {"device": "cpu"},
            "rename_observations_processor": {"rename_map": {}},
        },
    )
    policy.reset()
    actions = []
    for step in range(num_steps):
        images, state = noise(step)
        frame = {"observation.state": state} | {f"observation.images.{name}": image for name, image in images.items()}
        action = predict_action(frame, policy, torch.device("cpu"), before, after, False, TASK, "made_up_arm")
        actions.append(action[0].numpy())
    if config.pretrained_path is None:
        policy.save_pretrained(dataset.root / "policy")
        before.save_pretrained(dataset.root / "policy")
        after.save_pretrained(dataset.root / "policy")
    return np.array(actions)


def check_evaluation(config: PreTrainedConfig, dataset: LeRobotDataset, server: str) -> None:
    """Two robots in lockstep, each with its own session."""
    policy = make_policy(config, ds_meta=dataset.meta)
    before, after = make_pre_post_processors(config)
    environments = gymnasium.vector.SyncVectorEnv([MadeUpEnvironment, MadeUpEnvironment])
    steps = PolicyProcessorPipeline(steps=[])
    actions = rollout(environments, policy, steps, steps, before, after)["action"].numpy()
    assert actions.shape == (2, MadeUpEnvironment._max_episode_steps, len(JOINTS))
    alone = asked_directly(server, SEED + 1, actions.shape[1])
    np.testing.assert_allclose(actions[1], alone, rtol=0, atol=1e-2)  # computed in one batch with the other


def main() -> None:
    """All of it; an AssertionError or a traceback where something is wrong."""
    server, folder = sys.argv[1], Path(tempfile.mkdtemp())
    logging.basicConfig(level=logging.WARNING)
    register_third_party_plugins()
    assert "molmoact2_remote" in PreTrainedConfig.get_known_choices()
    policy = options(server)
    config = draccus.parse(RecordConfig, args=recording(folder, policy))
    assert config.policy is not None
    print(f"found      {config.policy.type} in LeRobot {lerobot.__version__}, torch {torch.__version__}")

    arm = MadeUpArm(MadeUpArmConfig(calibration_dir=folder))
    features = {
        "action": {"dtype": "float32", "shape": (len(JOINTS),), "names": list(arm.action_features)},
        "observation.state": {"dtype": "float32", "shape": (len(JOINTS),), "names": list(arm.action_features)},
    } | {
        f"observation.images.{camera}": {
            "dtype": "image",
            "shape": (*SIZE, 3),
            "names": ["height", "width", "channels"],
        }
        for camera in CAMERAS
    }
    dataset = LeRobotDataset.create("check/features", 15, features, root=folder / "features", use_videos=False)
    num_steps = sum(TAKEN)
    expected = asked_directly(server, SEED, num_steps)
    actions = through_lerobot(config.policy, dataset, num_steps)
    np.testing.assert_array_equal(actions, expected)
    print(f"equal      {num_steps} actions, largest {np.abs(actions).max():.1f}")

    again = PreTrainedConfig.from_pretrained(dataset.root / "policy")
    again.pretrained_path = dataset.root / "policy"
    np.testing.assert_array_equal(through_lerobot(again, dataset, num_steps), expected)
    print(f"saved      {', '.join(sorted(path.name for path in (dataset.root / 'policy').iterdir()))}")

    sys.argv = ["lerobot-record", *recording(folder, policy)]
    record()
    rows = np.stack(pandas.read_parquet(folder / "dataset" / "data")["action"])
    np.testing.assert_array_equal(rows, np.array(MadeUpArm.sent))
    np.testing.assert_array_equal(rows[0], asked_first(server))
    print(f"recorded   {len(rows)} frames")

    check_evaluation(draccus.parse(RecordConfig, args=recording(folder, policy)).policy, dataset, server)
    print("evaluated  2 robots")


def asked_first(server: str) -> np.ndarray:
    """The first action of an episode of the made-up arm, which begins at zero."""
    with Client(server) as client:
        client.reset(SEED)
        images, _ = noise(0)
        observation = Observation(images=images, state=np.zeros(len(JOINTS), np.float32), instruction=TASK)
        return client.act(observation, num_action_steps=ROWS).actions[0]


if __name__ == "__main__":
    main()
