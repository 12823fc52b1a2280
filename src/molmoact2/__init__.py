"""MolmoAct2: an open vision-language-action model, from checkpoint to moving arm."""

from molmoact2.types import ActionChunk, DepthReasoning, Environment, Observation, Outcome, Policy

__all__ = ["ActionChunk", "DepthReasoning", "Environment", "Observation", "Outcome", "Policy"]
