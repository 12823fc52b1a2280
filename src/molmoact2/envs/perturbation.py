"""Disturbances that show a learner how to recover: the expert's intended action is recorded, a disturbed one executed.

Without them every recorded arm is on course, and a policy that strays a little sees what it was never shown.
"""

import numpy as np
from numpy.typing import NDArray

NOISE_DEGREES, DELICATE_NOISE_DEGREES = 2.0, 0.6
"""Standard deviation of the joint noise, far from things and near them."""
CORRELATION = 0.75
"""How much of the noise carries over from one step to the next."""
BUMP_CHANCE, BUMP_STEPS, BUMP_DEGREES = 0.6, 3, 12.6
BUMP_WINDOW_STEPS = (2, 30)


class Perturbation:
    """Correlated joint noise through one episode and, in six of ten episodes, one bump of three steps.

    The gripper (last dimension) is left alone. Make a new one for every episode of an arm with `joints` joints.
    """

    def __init__(self, seed: int, joints: int = 5) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = self.rng.normal(size=joints)
        self.bump = self.rng.uniform(-BUMP_DEGREES, BUMP_DEGREES, joints)
        self.bump *= self.rng.random() < BUMP_CHANCE
        self.bump_start = int(self.rng.integers(*BUMP_WINDOW_STEPS))
        self.step = 0

    def disturb(self, action: NDArray[np.floating], *, delicate: bool = False) -> NDArray[np.float32]:
        """The action to execute in place of `action` [joints + 1]: degrees, and the gripper last.

        `delicate` softens the noise where fingers are close to something; `So101Expert.delicate` says when.
        """
        fresh = self.rng.normal(size=self.noise.shape)
        self.noise = CORRELATION * self.noise + np.sqrt(1 - CORRELATION**2) * fresh
        disturbance = self.noise * (DELICATE_NOISE_DEGREES if delicate else NOISE_DEGREES)
        if self.bump_start <= self.step < self.bump_start + BUMP_STEPS:
            disturbance = disturbance + self.bump
        self.step += 1
        return (action + np.append(disturbance, 0.0)).astype(np.float32)
