"""Which policy it is that answers, and what its bits depend on."""

import importlib.metadata
from pathlib import Path

import torch

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.serving.flight.events import PolicyIdentity
from molmoact2.serving.identity import revision_of


def identify(policy: MolmoAct2Policy, name: str, *, action_tokenizer: str | None = None) -> PolicyIdentity:
    """The identity of a policy that was loaded as `name`, in this process as it is now.

    `action_tokenizer` is what was given in place of the checkpoint's own.
    """
    return PolicyIdentity(
        name=str(Path(name).resolve()) if Path(name).is_dir() else name,
        fingerprint=revision_of(name, policy.revision),
        dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
        device=str(policy.device),
        num_threads=torch.get_num_threads(),
        torch=torch.__version__,
        molmoact2=importlib.metadata.version("molmoact2"),
        action_tokenizer=action_tokenizer,
    )
