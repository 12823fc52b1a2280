"""A checkpoint in an episode: its own session, its whole horizon."""

from dataclasses import dataclass

import torch

from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.session import Session
from molmoact2.types import ActionChunk, Observation, Policy


@dataclass(frozen=True, kw_only=True)
class CheckpointEpisode:
    """One episode of a checkpoint; implements `Policy`."""

    policy: MolmoAct2Policy
    embodiment: str
    horizon: int
    """Rows that are planned; how many of them are executed is for the episode loop to say."""
    num_flow_steps: int | None
    session: Session
    """Draws the episode's noise, which follows from the episode's seed."""

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the whole plan [horizon, action_dim]."""
        return self.policy.act(
            observation,
            self.embodiment,
            num_steps=self.num_flow_steps,
            num_action_steps=self.horizon,
            session=self.session,
        )


def open_checkpoint(choice: PolicyChoice, embodiment: str) -> PolicySource:
    """Load the checkpoint; ValueError when it is none, or does not know the robot with the tag `embodiment`."""
    if choice.num_threads:
        torch.set_num_threads(choice.num_threads)
    policy = load_policy(choice.name, dtype=choice.dtype)
    tag = policy.processor.tag(embodiment)

    def start(seed: int) -> Policy:
        return CheckpointEpisode(
            policy=policy,
            embodiment=embodiment,
            horizon=tag.action_horizon,
            num_flow_steps=choice.num_flow_steps,
            session=policy.new_session(seed),
        )

    return PolicySource(start=start, num_action_steps=choice.num_action_steps or tag.n_action_steps)
