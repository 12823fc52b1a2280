"""Which policy it is that answers, and what its bits depend on."""

import importlib.metadata

import torch

from molmoact2.inference.fingerprint import fingerprint
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.serving.flight.events import PolicyIdentity


def identify(policy: MolmoAct2Policy, name: str) -> PolicyIdentity:
    """The identity of a policy that was loaded as `name`, in this process as it is now."""
    return PolicyIdentity(
        name=name,
        fingerprint=f"commit:{policy.revision}" if policy.revision else fingerprint(name),
        dtype=str(next(policy.model.parameters()).dtype).removeprefix("torch."),
        device=str(policy.device),
        num_threads=torch.get_num_threads(),
        torch=torch.__version__,
        molmoact2=importlib.metadata.version("molmoact2"),
    )
