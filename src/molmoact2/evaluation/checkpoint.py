"""A checkpoint in an episode: its own session, its whole horizon."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from molmoact2.evaluation.depth_truth import judge_by
from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.checkpoint import locate
from molmoact2.inference.decoding import DecodingError
from molmoact2.inference.fingerprint import digest_of
from molmoact2.inference.session import Session
from molmoact2.model.config import read_config
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.tokens.reading import parse_json, require
from molmoact2.types import ActionChunk, Environment, NoActionError, Observation, Policy


@dataclass(frozen=True, kw_only=True)
class CheckpointEpisode:
    """One episode of a checkpoint; implements `Policy`."""

    policy: MolmoAct2Policy
    embodiment: str
    options: Mapping[str, Any]
    """Of every call: `molmoact2.inference.request.ActOptions`. The whole horizon is planned; how many rows of it are
    executed is for the episode loop to say."""
    session: Session
    """Draws the episode's noise, which follows from the episode's seed, and remembers the last depth map."""

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the whole plan [horizon, action_dim]."""
        try:
            return self.policy.act(observation, self.embodiment, session=self.session, **self.options)
        except (ActionDecodeError, DecodingError) as error:
            raise NoActionError(str(error)) from error


def open_checkpoint(choice: PolicyChoice, environment: Environment) -> PolicySource:
    """Load the checkpoint; ValueError when it is none, or does not know the environment's robot."""
    if choice.num_threads:
        torch.set_num_threads(choice.num_threads)
    choice.check()
    policy = load_policy(choice.name, dtype=choice.dtype)
    tag = policy.processor.tag(environment.embodiment)
    options = {"mode": choice.mode, "num_steps": choice.num_flow_steps, "num_action_steps": tag.action_horizon}
    options |= {name: True for name in ("guided", "think", "think_ahead") if vars(choice)[name]}

    def start(seed: int) -> Policy:
        session = policy.new_session(seed)
        return CheckpointEpisode(policy=policy, embodiment=tag.tag, options=options, session=session)

    return PolicySource(
        start=start,
        num_action_steps=choice.num_action_steps or tag.n_action_steps,
        judge=judge_by(environment, policy.depth_codec),
    )


def check_thinking(name: str) -> None:
    """ValueError unless this checkpoint was trained to think."""
    directory, _ = locate(name, None)
    config = parse_json((directory / "config.json").read_bytes(), "config.json")
    require(
        read_config(config).enable_depth_reasoning,
        f"{name} was not trained to think: ask it without think, or give a checkpoint that was.",
    )


def fingerprint(name: str) -> str:
    """The commit of a hub id, or a digest of all files of a directory; ValueError when there is no such checkpoint."""
    directory, commit = locate(name, None)
    return f"commit:{commit}" if commit else digest_of(directory)
