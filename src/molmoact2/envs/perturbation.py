"""Disturbances that show a learner how to recover: the expert's intended action is recorded, a disturbed one executed.

Without them every recorded arm is on course, and a policy that strays a little sees what it was never shown.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CORRELATION = 0.75
"""How much of the noise carries over from one step to the next."""
BUMP_CHANCE, BUMP_STEPS = 0.6, 3
BUMP_WINDOW_STEPS = (2, 30)


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far actions of one kind are disturbed, in their own units."""

    noise: float
    """Standard deviation far from things."""
    delicate_noise: float
    """Standard deviation near them."""
    bump: float
    """Largest push of a bump."""
    shares: tuple[float, ...]
    """Of each dimension but the gripper, its share of the above."""


JOINT_DEGREES = Strength(noise=2.0, delicate_noise=0.6, bump=12.6, shares=(1.0,) * 5)
"""Five joint targets in degrees."""
POSE_COMMANDS = Strength(noise=0.3, delicate_noise=0.06, bump=1.2, shares=(1.0, 1.0, 1.0, 0.1, 0.1, 0.1))
"""Commands in [-1, 1] that move and turn a hand."""


class Perturbation:
    """Correlated noise through one episode and, in six of ten episodes, one bump of three steps.

    The gripper (last dimension) is left alone. Make a new one for every episode.
    """

    def __init__(self, seed: int, strength: Strength = JOINT_DEGREES) -> None:
        self.rng = np.random.default_rng(seed)
        self.strength = strength
        self.shares = np.array(strength.shares)
        self.noise = self.rng.normal(size=len(self.shares))
        self.bump = self.rng.uniform(-strength.bump, strength.bump, len(self.shares)) * self.shares
        self.bump *= self.rng.random() < BUMP_CHANCE
        self.bump_start = int(self.rng.integers(*BUMP_WINDOW_STEPS))
        self.step = 0

    def disturb(self, action: NDArray[np.floating], *, delicate: bool = False) -> NDArray[np.float32]:
        """The action to execute in place of `action` [dimensions + 1], the gripper last.

        `delicate` softens the noise where fingers are close to something; an expert's `delicate` says when.
        """
        fresh = self.rng.normal(size=self.noise.shape)
        self.noise = CORRELATION * self.noise + np.sqrt(1 - CORRELATION**2) * fresh
        size = self.strength.delicate_noise if delicate else self.strength.noise
        disturbance = self.noise * self.shares * size
        if self.bump_start <= self.step < self.bump_start + BUMP_STEPS:
            disturbance = disturbance + self.bump
        self.step += 1
        return (action + np.append(disturbance, 0.0)).astype(np.float32)
