"""Checkpoints that act: load one, ask it, save it."""

from molmoact2.inference.checkpoint import load_policy, save_policy
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.inference.session import Session

__all__ = ["MolmoAct2Policy", "Session", "load_policy", "save_policy"]
