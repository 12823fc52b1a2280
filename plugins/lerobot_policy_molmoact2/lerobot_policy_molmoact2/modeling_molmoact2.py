"""A policy without weights: LeRobot asks it, and it asks the server."""

import logging
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from numpy.typing import NDArray
from torch import Tensor

from lerobot_policy_molmoact2.configuration_molmoact2 import TRAIN_ELSEWHERE, MolmoAct2RemoteConfig
from lerobot_policy_molmoact2.following import IMAGES, Follower, Translation, check_names
from molmoact2.client import AskOptions, Client, ConnectionLostError, RefusedError, WrongQuestionError
from molmoact2.types import Committed, Observation


class MolmoAct2RemotePolicy(PreTrainedPolicy):
    """Every robot of a batch has a session of its own on the server."""

    config_class = MolmoAct2RemoteConfig
    name = "molmoact2_remote"

    def __init__(self, config: MolmoAct2RemoteConfig, *, dataset_meta: Any = None, **_: object) -> None:
        """Connect. `dataset_meta` is LeRobot's description of the robot or dataset, where there is one.

        Raises ValueError where the server's policy is for another robot, or the settings leave something open;
        ConnectionLostError where nobody answers; RefusedError where the server does not want us.
        """
        super().__init__(config)
        config.validate_features()
        self.config = config
        self.token = Path(config.token_file).expanduser().read_text().strip() if config.token_file else None
        self.options = AskOptions(
            embodiment=config.embodiment,
            think=config.think,
            num_steps=config.num_steps,
            num_action_steps=config.n_action_steps,
        )
        client = self._client()
        self.card = client.robot(config.embodiment)
        self.translation = Translation.of(self.card, config.cameras, config.calibration)
        self._check(dataset_meta)
        self.followers = [self._follower(client)]
        self.last: list[NDArray[np.float32]] = []
        """What each robot was told last."""
        self.trouble_since: float | None = None
        self.reset()

    def reset(self) -> None:
        """A new episode for every robot."""
        self.last, self.trouble_since = [], None
        for number, follower in enumerate(self.followers):
            follower.reset(None if self.config.seed is None else self.config.seed + number)

    def select_action(self, batch: dict[str, Tensor], **_: object) -> Tensor:
        """The next command of every robot [robots, action_dim]; waits where a plan has to be waited for.

        While the server does not answer, or an operator holds the robot, the last command is repeated for up to
        `patience_s`, if it says a pose and not a movement. Then, and before the first command, the error is raised.
        """
        followers = self._followers(len(batch[OBS_STATE]))
        try:
            for row, follower in enumerate(followers):
                follower.look(lambda row=row: self.observation(batch, row))
            for follower in followers:
                follower.settle()
        except WrongQuestionError:
            raise
        except (ConnectionLostError, RefusedError) as error:
            self._hold(error, len(followers))
        else:
            self.last, self.trouble_since = [follower.step() for follower in followers], None
        return torch.from_numpy(np.stack(self.last))

    def predict_action_chunk(
        self,
        batch: dict[str, Tensor],
        *,
        prev_chunk_left_over: Tensor | None = None,
        inference_delay: int | None = None,
        execution_horizon: int | None = None,
        **_: object,
    ) -> Tensor:
        """A plan for every robot [robots, rows, action_dim].

        For real-time chunking: what is left of the plan before, [rows, action_dim] or [robots, rows, action_dim] as
        this method returned it, how many of its rows are executed meanwhile, and how many may be followed.
        """
        left = None if prev_chunk_left_over is None else prev_chunk_left_over.cpu().numpy()[..., :execution_horizon, :]
        plans = []
        for row, follower in enumerate(self._followers(len(batch[OBS_STATE]))):
            options = AskOptions(**self.options)
            if left is not None:
                rows = self.translation.to_model(left if left.ndim == 2 else left[row])
                options["committed"] = Committed(actions=rows, delay=min(inference_delay or 0, len(rows)))
            plans.append(follower.client.begin(self.observation(batch, row), **options))
        return torch.from_numpy(self.translation.to_arm(np.stack([plan.result().actions for plan in plans])))

    def observation(self, batch: dict[str, Any], row: int) -> Observation:
        """One robot's observation in the policy's words."""
        images = {key: pixels(value[row], key) for key, value in batch.items() if key.startswith(IMAGES)}
        task = batch["task"]
        instruction = task if isinstance(task, str) else task[row]
        return self.translation.observation(images, batch[OBS_STATE][row].cpu().numpy(), instruction)

    def forward(self, batch: dict[str, Tensor]) -> NoReturn:
        """NotImplementedError: there is nothing to train."""
        raise NotImplementedError(TRAIN_ELSEWHERE)

    def get_optim_params(self) -> NoReturn:
        """NotImplementedError: there is nothing to train."""
        raise NotImplementedError(TRAIN_ELSEWHERE)

    def _client(self) -> Client:
        config = self.config
        return Client(config.server, token=self.token, jpeg_quality=config.jpeg_quality, timeout_s=config.timeout_s)

    def _follower(self, client: Client) -> Follower:
        return Follower(client=client, translation=self.translation, ahead=self.config.ahead, options=self.options)

    def _followers(self, count: int) -> list[Follower]:
        """One for each robot; those that are new begin an episode."""
        while len(self.followers) < count:
            follower = self._follower(self._client())
            follower.reset(None if self.config.seed is None else self.config.seed + len(self.followers))
            self.followers.append(follower)
        return self.followers[:count]

    def _check(self, dataset_meta: Any) -> None:
        """ValueError unless LeRobot's robot is the policy's."""
        card, rows = self.card, self.config.n_action_steps or self.card.n_action_steps
        if self.config.ahead >= rows:
            raise ValueError(f"ahead must be less than the {rows} rows of a plan, got {self.config.ahead}.")
        if dataset_meta is not None and dataset_meta.fps != card.control_hz:
            raise ValueError(
                f"A plan for {card.tag!r} has {card.control_hz:g} rows a second, and LeRobot would play "
                f"{dataset_meta.fps:g}. Give --dataset.fps={card.control_hz:g}."
            )
        described = {} if dataset_meta is None else dataset_meta.features
        for key, expected in ((OBS_STATE, card.state_names), (ACTION, card.action_names)):
            check_names(card, key, expected, described.get(key, {}).get("names"))
            feature = {**(self.config.input_features or {}), **(self.config.output_features or {})}.get(key)
            if feature is not None and tuple(feature.shape) != (len(expected),):
                raise ValueError(
                    f"{key} of {card.tag!r} has {len(expected)} numbers, {', '.join(expected)}; LeRobot's has shape "
                    f"{list(feature.shape)}."
                )

    def _hold(self, error: Exception, count: int) -> None:
        """Go on with the last command, or raise `error`."""
        now = time.monotonic()
        if self.trouble_since is None:
            self.trouble_since = now
            logging.warning("The policy server gives no actions, so the arm holds: %s", error)
        is_pose = "absolute" in self.card.control_mode
        if not is_pose or len(self.last) != count or now - self.trouble_since > self.config.patience_s:
            raise error


def pixels(image: Tensor, key: str) -> NDArray[np.uint8]:
    """LeRobot's image [3, height, width] in [0, 1] as uint8 [height, width, 3], exactly as the camera gave it."""
    if not image.is_floating_point() or image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"{key} must be floating point [3, height, width], got {image.dtype} {list(image.shape)}.")
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(f"{key} must be in [0, 1]; it was normalised. Set no normalisation for images.")
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
