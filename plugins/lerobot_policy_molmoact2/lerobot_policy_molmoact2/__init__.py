"""A MolmoAct2 policy server as a LeRobot policy. LeRobot imports this package when its tools start."""

from lerobot_policy_molmoact2.configuration_molmoact2 import MolmoAct2RemoteConfig

__all__ = ["MolmoAct2RemoteConfig"]
