"""A run that `test_interrupted.py` kills, after the same run without being killed; what is there is continued.

python interrupted_run.py FOLDER whole parts
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from small_run import small_config, small_stage, small_trainer

from molmoact2.training.config import TrainConfig

CHECKPOINT_EVERY = 3


def config() -> TrainConfig:
    """Two stages with everything that draws at random, prepared by a worker process."""
    reason = small_stage(name="reason", examples_per_step={"scenes": 2}, flow_samples=0, num_steps=8)
    act = small_stage(num_steps=40, residual_dropout=0.1, tokens_per_row=300, rows_per_pass=2)
    whole = small_config(stages=(reason, act), num_workers=1)
    return replace(whole, checkpoint_every=CHECKPOINT_EVERY, measure_every=10)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        trainer = small_trainer(Path(sys.argv[1]) / name, config())
        trainer.resume()
        trainer.run()
