"""Makes the picture of docs/real-time-chunking.md: give it the path of the picture.

Above, one change of plans of the bundled policy on the simulated arm; below, the commands of whole episodes.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.real_time import DELAY, EVERY, HORIZON, WAYS, Rider, pull

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs import make
from molmoact2.inference import load_policy
from molmoact2.types import Committed

TASK, SEED = "push", 3_002_004
"""One with a large seam."""
JOINT = "wrist_flex"
TAKEN, NEW, GIVEN = "#222222", "#d1495b", "#9aa5b1"


def main() -> None:
    """A column per way."""
    environment, policy = make("so101"), load_policy("nano-so101")
    joint = SO101_TABLETOP.action_names.index(JOINT)
    environment.reset(seed=SEED, task=TASK)
    present = policy.act(environment.observe(), seed=SEED, num_action_steps=HORIZON).actions
    for action in present[:EVERY]:
        environment.step(action)
    seen = environment.observe()
    figure, axes = plt.subplots(2, len(WAYS), figsize=(11, 5.6), sharey="row", layout="constrained")
    for column, (way, settings) in enumerate(WAYS.items()):
        options = pull(settings, Committed(actions=present[EVERY:], delay=DELAY))
        new = policy.act(seen, seed=1, num_action_steps=HORIZON, **options).actions
        change(axes[0, column], present[:, joint], new[:, joint])
        axes[0, column].set_title(f"{way} ({'no guidance' if settings is None else settings.schedule})")
        ride = Rider(policy=policy, environment=environment, way=settings).ride(task=TASK, seed=SEED)
        axes[1, column].plot(ride.commands[:, joint], color=TAKEN, linewidth=1.2)
        axes[1, column].set_title(
            f"{'done' if ride.success else 'not done'} after {ride.num_steps} steps", fontsize=9, color=TAKEN
        )
        axes[1, column].set_xlabel("step")
    environment.close()
    axes[0, 0].set_ylabel(f"{JOINT}, degrees\none change of plans")
    axes[1, 0].set_ylabel(f"{JOINT}, degrees\na whole episode")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(sys.argv[1], dpi=80)


def change(axis: plt.Axes, present: np.ndarray, new: np.ndarray) -> None:
    """Both plans, and what the arm was told of them."""
    take_over = EVERY + DELAY
    axis.axvspan(EVERY, take_over, color="#fff1c9", linewidth=0, label="while the new plan is made")
    axis.plot(present, ".-", color=GIVEN, markersize=5, label="present plan")
    axis.plot(np.arange(HORIZON) + EVERY, new, ".-", color=NEW, markersize=5, linewidth=1, label="new plan")
    executed = np.concatenate((present[:take_over], new[DELAY:]))
    axis.plot(executed, color=TAKEN, linewidth=1.6, label="executed")


if __name__ == "__main__":
    main()
