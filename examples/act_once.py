"""One chunk of actions from a checkpoint made on the spot: the whole of the public contract in a dozen lines.

python examples/act_once.py
"""

import tempfile

from molmoact2 import load_policy
from molmoact2.testing import fake_observation, tiny_checkpoint

with tempfile.TemporaryDirectory() as directory:
    policy = load_policy(tiny_checkpoint(directory), device="cpu", dtype="float32")

observation = fake_observation(seed=0)
print(f"asked to {observation.instruction}, seeing {', '.join(observation.images)}")

chunk = policy.act(observation, seed=0)
print(f"{len(chunk.actions)} steps for {chunk.actions.shape[1]} joints, the first of them {chunk.actions[0].round(1)}")
print(", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in chunk.timing.items()))
