"""The policy that a flight was flown with, or another one to compare it with."""

from pathlib import Path

import torch

from molmoact2.inference.checkpoint import load_policy
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.serving.flight.events import PolicyIdentity
from molmoact2.serving.flight.identity import identify
from molmoact2.serving.identity import revision_of
from molmoact2.tokens.reading import require


def load_recorded(
    recorded: PolicyIdentity, other: str | None, *, device: str | None = None
) -> tuple[MolmoAct2Policy, PolicyIdentity]:
    """The policy of a flight, or `other`, computing as the recorded one did; and its identity.

    Torch is given as many threads as it had, because sums of floats depend on it.

    Raises:
        ValueError: the recorded checkpoint is not there any more, or is not what it was; `other` cannot be loaded.
    """
    commit = None if recorded.fingerprint.startswith("sha256:") else recorded.fingerprint
    name, revision = (recorded.name, commit) if other is None else (other, None)
    if other is None and commit is None:
        require_same(recorded)
    torch.set_num_threads(recorded.num_threads)
    tokenizer = recorded.action_tokenizer if other is None else None
    policy = load_policy(name, device or recorded.device, recorded.dtype, revision=revision, action_tokenizer=tokenizer)
    return policy, identify(policy, name, action_tokenizer=tokenizer)


def require_same(recorded: PolicyIdentity) -> None:
    """ValueError unless the folder that the log names is what it was."""
    advice = "Give its folder, or another checkpoint to compare with, by --policy."
    is_file_name = recorded.name.startswith("/")
    require(Path(recorded.name).is_dir() or not is_file_name, f"{recorded.name}, the log's, is not there. {advice}")
    found = revision_of(recorded.name, None)
    require(
        found == recorded.fingerprint,
        f"{recorded.name} is not what it was: its fingerprint was {recorded.fingerprint} and is {found}. {advice}",
    )


def strange(recorded: PolicyIdentity, now: PolicyIdentity) -> list[str]:
    """What else may change the last bits, in words; empty where all is as it was."""
    names = {"device": "the device", "torch": "torch", "molmoact2": "molmoact2", "num_threads": "the number of threads"}
    return [
        f"{words} was {vars(recorded)[name]} and is {vars(now)[name]}"
        for name, words in names.items()
        if vars(recorded)[name] != vars(now)[name]
    ]
