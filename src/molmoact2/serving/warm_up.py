"""The first answer of a network is its slowest: memory is taken, kernels are chosen. Nobody should wait for that."""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np

from molmoact2.inference.decoding import DecodingError
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.processing.norm_stats import TagStats
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.types import Observation

LOG = logging.getLogger("molmoact2.serving")
IMAGE_SIZE = (360, 640)
"""Height and width that cameras of robots usually have; the policy scales every image to its own size anyway."""


def warm_up(policy: MolmoAct2Policy, embodiments: Sequence[str]) -> None:
    """Answer one made-up question for every embodiment, in every mode, and thinking where it can."""
    for tag in embodiments:
        observation = blank(policy.processor.tag(tag))
        for mode in modes_served(policy):
            for think in (False, True)[: 1 + policy.can_think]:
                try:
                    policy.act(observation, tag, mode=mode, think=think, seed=0)
                except (DecodingError, ActionDecodeError) as error:
                    LOG.info("warming up %s, %s mode: the checkpoint said no action (%s)", tag, mode, error)


def modes_served(policy: MolmoAct2Policy) -> list[Literal["continuous", "discrete"]]:
    """The modes in which it can be asked: spoken actions need an action tokenizer to read them."""
    able: dict[Literal["continuous", "discrete"], bool] = {
        "continuous": True,
        "discrete": policy.action_tokenizer is not None,
    }
    return [mode for mode, is_able in able.items() if is_able and mode in policy.modes]


def blank(stats: TagStats) -> Observation:
    """What a robot in the dark at the middle of its range would observe."""
    image = np.zeros((*IMAGE_SIZE, 3), np.uint8)
    state = stats.state_scaling.restore(np.zeros(stats.state.width))
    return Observation(images=[image] * max(1, len(stats.camera_keys)), state=state, instruction="wait")
