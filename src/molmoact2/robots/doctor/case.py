"""What a check is given, and what several of them ask of it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import EMBODIMENTS, Embodiment
from molmoact2.robots.doctor.sample import Sample, View
from molmoact2.wire.messages import RobotCard


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """What the policy answered to the last observation of the sample; nothing of it was executed."""

    seconds: float | None = None
    """From the question to the answer; None where there was none."""
    first_action: NDArray[np.float64] | None = None
    """[action_dim] robot units."""
    refusal: str | None = None
    """Why there was no answer."""


Execution: TypeAlias = Literal["open-loop", "asynchronous"]
"""Whether the robot waits for each chunk, or moves on while the next one is made."""
CAMERA_PREFIX = "observation.images."
MARGIN = 0.1
"""Share of the training range that is allowed beyond its ends."""
SLACK = {"deg": 3.0, "rad": 0.05, "percent": 3.0, "fraction": 0.03, "m": 0.01}
"""Unit -> what is allowed beyond them at least."""
MOVED = {"deg": 2.0, "rad": 0.035, "percent": 4.0, "fraction": 0.04, "m": 0.005}
"""Unit -> travel from which on a dimension has moved, not trembled."""
GRIPPER_UNITS = ("percent", "fraction")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One robot and one checkpoint."""

    sample: Sample
    card: RobotCard
    reference: Sample | None = None
    """A recording that the checkpoint learned from: what its cameras should see."""
    trial: Trial = Trial()
    """What the policy answered, if it was asked."""
    execution: Execution = "open-loop"

    @cached_property
    def embodiment(self) -> Embodiment | None:
        """What our table says about the card's tag."""
        return EMBODIMENTS.get(self.card.tag)

    @cached_property
    def expected_cameras(self) -> tuple[str, ...]:
        """Names as the policy knows them, in its order; empty where any may be given."""
        return tuple(name.removeprefix(CAMERA_PREFIX) for name in self.card.cameras)

    @cached_property
    def given_cameras(self) -> dict[str, str]:
        """The robot's name of a camera -> what the embodiment calls it."""
        aliases = {} if self.embodiment is None else self.embodiment.camera_aliases
        canonical = {alias: name for name, others in aliases.items() for alias in others}
        bare = {name: name.removeprefix(CAMERA_PREFIX) for name in self.sample.views}
        return {name: canonical.get(short, short) for name, short in bare.items()}

    def reference_view(self, camera: str) -> View | None:
        """What the robot's `camera` shows in the reference, where there is one."""
        views = {} if self.reference is None else self.reference.views
        bare = {name.removeprefix(CAMERA_PREFIX): view for name, view in views.items()}
        return bare.get(self.given_cameras[camera])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The robot's names of the state's dimensions, as the embodiment spells them."""
        return self.sample.names if self.embodiment is None else self.embodiment.canonical(self.sample.names)

    @property
    def has_joints(self) -> bool:
        """Whether the state has the width that the checkpoint expects, and is finite: others cannot be compared."""
        return self.sample.states.shape[1] == len(self.card.state_names) and bool(np.isfinite(self.sample.states).all())

    @cached_property
    def units(self) -> tuple[str, ...]:
        """Of the state: those of the actions where both have the same dimensions, else "unknown"."""
        is_same = self.card.state_names == self.card.action_names
        return self.card.action_units if is_same else ("unknown",) * len(self.card.state_names)

    @property
    def arm_moved(self) -> bool:
        """Whether a joint went further than it trembles; only where `has_joints`."""
        return self._is_motion(self.sample.states)

    @property
    def was_told_to_move(self) -> bool:
        """Whether the commands of a recording went further than that."""
        actions = self.sample.actions
        return actions is not None and actions.shape[1] == len(self.units) and self._is_motion(actions)

    def _is_motion(self, values: NDArray[np.float64]) -> bool:
        return bool((np.ptp(values, axis=0) > [MOVED.get(unit, np.inf) for unit in self.units]).any())

    @cached_property
    def gripper(self) -> NDArray[np.bool_]:
        """[state_dim] True where a dimension is a gripper's."""
        return np.array([unit in GRIPPER_UNITS for unit in self.units])

    @cached_property
    def usual(self) -> NDArray[np.float64] | None:
        """[state_dim, 2] where the training data usually were, with a margin; None where the card does not say."""
        return self._between("q01", "q99")

    @cached_property
    def known(self) -> NDArray[np.float64] | None:
        """[state_dim, 2] where they ever were, with a margin; None where the card does not say."""
        return self._between("min", "max")

    def _between(self, low: str, high: str) -> NDArray[np.float64] | None:
        statistics = self.card.state_statistics
        if not {low, high} <= statistics.keys():
            return None
        ends = np.array([statistics[low], statistics[high]], np.float64).T
        slack = np.maximum(MARGIN * np.ptp(ends, axis=1), [SLACK.get(unit, 0.0) for unit in self.units])
        return ends + slack[:, None] * (-1.0, 1.0)
