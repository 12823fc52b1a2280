"""A checkpoint in an episode: its own session, its whole horizon."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch

from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.checkpoint import locate
from molmoact2.inference.session import Session
from molmoact2.model.generate import DecodingError
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.types import ActionChunk, NoActionError, Observation, Policy


@dataclass(frozen=True, kw_only=True)
class CheckpointEpisode:
    """One episode of a checkpoint; implements `Policy`."""

    policy: MolmoAct2Policy
    embodiment: str
    horizon: int
    """Rows that are planned; how many of them are executed is for the episode loop to say."""
    num_flow_steps: int | None
    mode: Literal["continuous", "discrete"]
    guided: bool
    session: Session
    """Draws the episode's noise, which follows from the episode's seed."""

    def act(self, observation: Observation, /) -> ActionChunk:
        """Return the whole plan [horizon, action_dim]."""
        try:
            return self.policy.act(
                observation,
                self.embodiment,
                mode=self.mode,
                guided=self.guided,
                num_steps=self.num_flow_steps,
                num_action_steps=self.horizon,
                session=self.session,
            )
        except (ActionDecodeError, DecodingError) as error:
            raise NoActionError(str(error)) from error


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
            mode=choice.mode,
            guided=choice.guided,
            session=policy.new_session(seed),
        )

    return PolicySource(start=start, num_action_steps=choice.num_action_steps or tag.n_action_steps)


def fingerprint(name: str) -> str:
    """The commit of a hub id, or a digest of all files of a directory; ValueError when there is no such checkpoint."""
    directory, commit = locate(name, None)
    if commit:
        return f"commit:{commit}"
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(directory)} {content}\n".encode())
    return f"sha256:{digest.hexdigest()[:16]}"
