"""A run in the Rerun viewer: cameras, joints as they are and as they are told to be, the age of plans."""

from collections.abc import Mapping

import numpy as np

from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, Trouble
from molmoact2.control.robot import Frame
from molmoact2.embodiments import Embodiment
from molmoact2.evaluation.depth_pictures import depth_picture
from molmoact2.evaluation.rerun_log import RerunLog

STATE, COMMAND, PLAN_AGE = "state", "command", "plan_age_s"


def viewer_paths(cameras: Mapping[str, Frame]) -> tuple[list[str], list[str]]:
    """Pictures and groups of numbers that get a view of their own."""
    return [f"cameras/{name}" for name in cameras], [STATE, COMMAND, PLAN_AGE]


class RerunObserver(Silent):
    """Observer that logs: joints and pictures of every tick."""

    def __init__(self, log: RerunLog, embodiment: Embodiment) -> None:
        self.log = log
        self.embodiment = embodiment
        self.num_ticks = 0

    def ticked(self, tick: Tick, /) -> None:
        """Log the joints."""
        self.num_ticks += 1
        self.log.at(self.num_ticks, tick.time_s)
        for path, values in ((STATE, tick.reading and tick.reading.state), (COMMAND, tick.verdict.command)):
            if values is not None:
                self.log.numbers(path, self.embodiment.action_names, values)
        if tick.plan_age_s is not None:
            self.log.numbers(PLAN_AGE, ["now"], np.array([tick.plan_age_s]))
        for name, frame in tick.frames.items():
            self.log.image(f"cameras/{name}", frame.image)

    def planned(self, plan: Plan, _refusal: Trouble | None, /) -> None:
        """Log what the policy thought, where a picture can be made of it."""
        if plan.depth is not None and plan.depth.decoder is not None:
            self.log.image("depth", depth_picture(plan.depth))
