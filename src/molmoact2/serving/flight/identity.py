"""Which policy it is that answers, and what its bits depend on."""

import importlib.metadata

import torch

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.serving.flight.events import PolicyIdentity
from molmoact2.serving.identity import revision_of


def identify(policy: MolmoAct2Policy, name: str) -> PolicyIdentity:
    """The identity of a policy that was loaded as `name`, in this process as it is now."""
    return PolicyIdentity(
        name=name,
        fingerprint=revision_of(name, policy.revision),
        dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
        device=str(policy.device),
        num_threads=torch.get_num_threads(),
        torch=torch.__version__,
        molmoact2=importlib.metadata.version("molmoact2"),
    )
