"""What the server says about itself and about the robots that its checkpoint knows."""

import hashlib
import importlib.metadata
import json

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.processing.norm_stats import FeatureStats, TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.serving.desk import Desk
from molmoact2.serving.warm_up import modes_served
from molmoact2.wire.messages import RobotCard, Welcome

UNKNOWN_HZ = 0.0
"""Rate of a robot that is not in our table: checkpoints do not say it."""


def robot_card(stats: TagStats) -> RobotCard:
    """What the checkpoint says about an embodiment, and our table where the checkpoint says nothing."""
    known = EMBODIMENTS.get(stats.tag)
    is_ours = known is not None and len(known.action_names) == stats.action.width
    identity = {"mode": stats.mode, "entry": stats.document}
    return RobotCard(
        tag=stats.tag,
        cameras=tuple(name.removeprefix(PREFIX) for name in stats.camera_keys),
        state_names=names_of(stats.state, known.state_names if known else ()),
        action_names=names_of(stats.action, known.action_names if known else ()),
        action_units=known.action_units if known and is_ours else ("unknown",) * stats.action.width,
        control_hz=known.control_hz if known else UNKNOWN_HZ,
        action_horizon=stats.action_horizon,
        n_action_steps=stats.n_action_steps,
        setup=stats.setup,
        control_mode=stats.control_mode,
        normalization=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        state_statistics=statistics_of(stats.state),
        action_statistics=statistics_of(stats.action),
        gripper_range=known.gripper_range if known and is_ours else None,
        action_limits=known.action_limits if known and is_ours else None,
    )


def names_of(feature: FeatureStats, known: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions' names: the checkpoint's, else the table's if they are as many, else numbers."""
    numbered = tuple(str(i) for i in range(feature.width))
    return feature.names or (known if len(known) == feature.width else numbered)


def statistics_of(feature: FeatureStats) -> dict[str, tuple[float, ...]]:
    """Every statistic that the checkpoint has."""
    return {name: tuple(map(float, values)) for name, values in feature.quantities.items()}


def welcome(desk: Desk, session: str) -> Welcome:
    """The answer to Hello; without a session also what `GET /metadata` says."""
    policy = desk.engine.policy
    return Welcome(
        server=f"molmoact2 {importlib.metadata.version('molmoact2')}",
        model=desk.model,
        revision=desk.revision,
        session=session,
        robots=tuple(robot_card(policy.processor.tag(tag)) for tag in desk.engine.embodiments),
        modes=tuple(modes_served(policy)),
        can_think=policy.can_think,
        limits=desk.limits,
    )
