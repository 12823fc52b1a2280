"""How long the simulated arm takes: its cameras, its physics, and a scene that is laid out anew."""

from functools import partial

import numpy as np

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table
from molmoact2.envs.so101 import So101Env


def benchmark(settings: Settings) -> None:
    """Measure what a policy sees and what people see."""
    env = So101Env()
    env.reset(seed=0, task="pick")
    rest = env.joint_state()
    calls = {
        "an observation, two cameras of 128 x 128": env.observe,
        "a film's frame, 360 x 480, smooth and with shadows": env.render,
        "one control step of physics": partial(env.step, rest.astype(np.float64)),
        "a new scene": partial(env.reset, seed=1, task="pick"),
    }
    seconds = in_turns(calls, settings)
    env.close()
    print_table("The simulated arm", ["what", "ms"], [[name, milliseconds(time)] for name, time in seconds.items()])


if __name__ == "__main__":
    measure(benchmark, __doc__)
