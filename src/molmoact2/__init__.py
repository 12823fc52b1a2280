"""MolmoAct2: an open vision-language-action model, from checkpoint to moving arm."""

from typing import TYPE_CHECKING, Any

from molmoact2.types import ActionChunk, DepthReasoning, Environment, Observation, Outcome, Policy

if TYPE_CHECKING:
    from molmoact2.inference import MolmoAct2Policy, load_policy, save_policy

__all__ = [
    "ActionChunk",
    "DepthReasoning",
    "Environment",
    "MolmoAct2Policy",
    "Observation",
    "Outcome",
    "Policy",
    "load_policy",
    "save_policy",
]
NEED_TORCH = ("MolmoAct2Policy", "load_policy", "save_policy")


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for, so that robots and simulators run without torch."""
    if name not in NEED_TORCH:
        raise AttributeError(f"module 'molmoact2' has no attribute {name!r}")
    from molmoact2 import inference

    return vars(inference)[name]
