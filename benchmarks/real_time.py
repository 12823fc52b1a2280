"""What real-time chunking costs and brings.

overhead   an answer that goes on from committed rows against a plain one: both rules, one policy, taken in turns;
           in CPU time, which others on the machine change little
seams      the bundled policy on the simulated arm, asked while it moves: success, and how the commands jump

The clock of the simulated arm does not wait for the policy: an answer is used `DELAY` steps after it was asked for, and
a new plan is asked for `EVERY` steps after the last.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from benchmarks.measuring import Seconds, Settings, in_turns, measure, milliseconds, print_table, ratio
from benchmarks.networks import Measured, medium
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs import make
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.real_time import RealTime, guidance
from molmoact2.model import flow
from molmoact2.testing import fake_observation
from molmoact2.types import Committed, Environment, Observation

HORIZON = SO101_TABLETOP.action_horizon
DELAY, EVERY = 4, 6
FIRST_SEED = 3_002_000
WAYS: Mapping[str, RealTime | None] = {
    "plain": None,
    "guided": RealTime(),
    "simplified": RealTime(rule="simplified"),
}


def benchmark(settings: Settings) -> None:
    """Print both tables."""
    # Networks that are made in inference mode have no gradients, also for their inputs.
    with torch.inference_mode(False), torch.no_grad():
        nano = load_policy("nano-so101")
        measure_overhead("nano-so101", nano, fake_observation(seed=0), settings)
        if settings.has_medium:
            random: Measured = medium()
            for name, policy in random.policies.items():
                measure_overhead(f"medium, random weights, {name}", policy, random.observation, settings)
        measure_seams(nano, num_seeds=1 if settings.smoke else 40, num_tasks=1 if settings.smoke else None)


def measure_overhead(name: str, policy: MolmoAct2Policy, observation: Observation, settings: Settings) -> None:
    """Whole answers, and their flows alone."""
    present = policy.act(observation, seed=0, num_action_steps=HORIZON).actions
    plan = Committed(actions=present[EVERY:], delay=DELAY)
    calls: dict[str, Callable[[], object]] = {}
    for way, chosen in WAYS.items():
        calls[f"flow {way}"] = flow_of(policy, observation, chosen, plan)
        calls[f"answer {way}"] = partial(policy.act, observation, seed=1, **pull(chosen, plan))
    seconds = in_turns(calls, settings, time.process_time)
    rows = [
        [way, *(cell for what in ("flow", "answer") for cell in against(seconds, f"{what} {way}", f"{what} plain"))]
        for way in WAYS
    ]
    columns = ["rule", "flow, CPU ms", "of plain", "whole answer, CPU ms", "of plain"]
    print_table(f"Real-time chunking, {name}, {policy.config.flow_matching_num_steps} flow steps", columns, rows)


def against(seconds: Seconds, name: str, plain: str) -> tuple[str, str]:
    """A time and its ratio."""
    return milliseconds(seconds[name]), ratio(seconds[name], seconds[plain])


def flow_of(
    policy: MolmoAct2Policy, observation: Observation, chosen: RealTime | None, plan: Committed
) -> Callable[[], object]:
    """Everything after the prompt was read."""
    model, stats, inputs = policy.model, policy.processor.tag(None), policy.encode(observation).inputs
    layers = model.read(inputs, model.image_features(inputs, policy.processor.images.grid)).layers
    context = model.expert_context(layers, inputs.token_ids, inputs.valid)
    times = model.modulation(flow.time_grid(model.config.flow_matching_num_steps))
    width = model.config.max_action_dim
    noise = torch.randn(1, stats.action_horizon, width, generator=torch.Generator().manual_seed(0))
    pulled = chosen and guidance([plan], chosen, stats, padded_width=width, device=model.device)
    return partial(model.sample_actions, noise, context, times, action_dim=stats.action.width, guidance=pulled)


def pull(way: RealTime | None, plan: Committed) -> dict:
    """Options of `act`."""
    return {} if way is None else {"committed": plan, "real_time": way}


@dataclass(frozen=True, kw_only=True)
class Ride:
    """What became of an episode."""

    success: bool
    num_steps: int
    seams: tuple[float, ...]
    """Largest change of a joint at each change of plans."""
    commands: np.ndarray
    """[steps, action_dim] as they were executed, degrees and percent."""

    @property
    def roughness(self) -> float:
        """Mean second difference of the commands."""
        return float(np.abs(np.diff(self.commands, n=2, axis=0)).mean())


@dataclass(kw_only=True)
class Rider:
    """A policy on an arm that does not wait."""

    policy: MolmoAct2Policy
    environment: Environment
    way: RealTime | None
    delay: int = DELAY

    def ride(self, *, task: str, seed: int) -> Ride:
        """One episode. The first plan is waited for; the arm stands still meanwhile."""
        self.environment.reset(seed=seed, task=task)
        session = self.policy.new_session(seed)
        plan = new = self.plan(session)
        row, commands, seams, outcome = 0, [], [], None
        while (outcome is None or not outcome.done) and len(commands) < self.environment.max_steps:
            if row == EVERY:
                left = plan[row:]
                new = self.plan(session, **pull(self.way, Committed(actions=left, delay=self.delay)))
            if row == EVERY + self.delay:
                seams.append(float(np.abs(new[self.delay] - commands[-1]).max()))
                plan, row = new, self.delay
            commands.append(plan[row])
            outcome, row = self.environment.step(plan[row]), row + 1
        success = outcome is not None and outcome.success
        return Ride(success=success, num_steps=len(commands), seams=tuple(seams), commands=np.array(commands))

    def plan(self, session, **options) -> np.ndarray:
        """All rows of a new plan."""
        observation = self.environment.observe()
        return self.policy.act(observation, session=session, num_action_steps=HORIZON, **options).actions


def measure_seams(policy: MolmoAct2Policy, *, num_seeds: int, num_tasks: int | None = None) -> None:
    """Every seed of these tasks (all by default), in every way; and with a clock that waits, for comparison."""
    environment = make("so101")
    riders = {way: Rider(policy=policy, environment=environment, way=settings) for way, settings in WAYS.items()}
    riders["plain, the clock waits"] = replace(riders["plain"], delay=0)
    rows = []
    for way, rider in riders.items():
        rides = [
            rider.ride(task=task, seed=seed)
            for seed in range(FIRST_SEED, FIRST_SEED + num_seeds)
            for task in environment.tasks[:num_tasks]
        ]
        seams = np.concatenate([ride.seams for ride in rides])
        wins = sum(ride.success for ride in rides)
        rows.append([
            way, f"{wins} of {len(rides)}", f"{np.mean([ride.num_steps for ride in rides]):.0f}",
            f"{np.median(seams):.1f}", f"{np.quantile(seams, 0.9):.1f}",
            f"{np.mean([ride.roughness for ride in rides]):.2f}",
        ])  # fmt: skip
    environment.close()
    columns = ["rule", "success", "steps", "seam, median", "seam, 90 %", "second difference"]
    print_table(f"The simulated arm, {DELAY} steps late, a plan every {EVERY} steps", columns, rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
