"""What the type of one field alone cannot say about a message."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from molmoact2.types import Committed
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Ask, Refusal, Telemetry, Thought

Rule: TypeAlias = tuple[Callable[[Any, Limits], bool], str, str]
"""(whether a message keeps it, the field it is about, what is allowed there)"""


def num_steps_are_few(ask: Ask, limits: Limits) -> bool:
    """Whether the flow is integrated in an allowed number of steps."""
    return ask.num_steps is None or 1 <= ask.num_steps <= limits.num_flow_steps


RULES: Mapping[type[Any], tuple[Rule, ...]] = MappingProxyType(
    {
        Ask: (
            (num_steps_are_few, "num_steps", "None, or from 1 to `num_flow_steps` of the limits"),
            (lambda ask, _: ask.num_action_steps != 0, "num_action_steps", "None, or 1 and more"),
            (lambda ask, _: ask.deadline_s is None or ask.deadline_s > 0, "deadline_s", "None, or more than 0"),
        ),
        Committed: ((lambda plan, _: plan.delay <= len(plan.actions), "delay", "at most the number of actions"),),
        Answer: ((lambda answer, _: answer.actions.size > 0, "actions", "one row or more"),),
        Thought: ((lambda thought, _: thought.codes.shape == thought.changed.shape, "changed", "one value per code"),),
        Refusal: ((lambda refusal, _: (refusal.retry_after_s or 0) >= 0, "retry_after_s", "None, or 0 and more"),),
        Telemetry: (
            (lambda moved, _: len(moved.executed) == len(moved.times), "executed", "one row per time"),
            (lambda moved, _: len(moved.measured) == len(moved.times), "measured", "one row per time"),
        ),
    }
)
