"""Makes the picture of docs/variations.md: `python docs/images/variations.py docs/images/variations.png`."""

import sys
from dataclasses import fields

import matplotlib.pyplot as plt

from molmoact2.envs.so101 import So101Env
from molmoact2.envs.variations import Variations

MAGNITUDES = (0.0, 0.5, 1.0)
SCENES = (("plate", 1_000_000), ("push", 1_000_002))
SIZE = (192, 192)


def main() -> None:
    """A row per variation: two scenes as the front camera sees them, at three magnitudes."""
    names = [field.name for field in fields(Variations)]
    columns = len(SCENES) * len(MAGNITUDES)
    figure, axes = plt.subplots(len(names), columns, figsize=(1.6 * columns, 1.62 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        for step, magnitude in enumerate(MAGNITUDES):
            environment = So101Env(image_size=SIZE, variations=Variations(**{name: magnitude}))
            for scene, (task, seed) in enumerate(SCENES):
                environment.reset(seed=seed, task=task)
                axis = axes[row, scene * len(MAGNITUDES) + step]
                axis.imshow(environment.observe().images["front"])
                axis.set_title(f"{magnitude:g}" if row == 0 else "", fontsize=9)
            environment.close()
        axes[row, 0].set_ylabel(name)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(sys.argv[1], dpi=80)


if __name__ == "__main__":
    main()
