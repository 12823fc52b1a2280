"""What a thought costs: chunks with a depth map against chunks without, however much of the map has changed.

The bundled policy that thinks, on pairs of observations of the scripted expert's episodes that are one plan apart; the
map of the first is remembered in the second. Of its cells those count as changed whose pixels changed most. The twin
says one cell after the other, known ones in one pass, as the releases do.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table
from molmoact2.depth.change import cells_of
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs import make
from molmoact2.evaluation.experts import make_expert
from molmoact2.inference import MolmoAct2Policy, load_policy
from molmoact2.inference.decoding import Speech
from molmoact2.inference.session import DepthMemory, DepthPlan, Session
from molmoact2.model import flow
from molmoact2.types import Observation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from step_by_step import think_step_by_step

SHARES = (0.0, 0.1, 0.3, 1.0)
"""Of the cells, that changed."""
STEPS_BETWEEN_PLANS = SO101_TABLETOP.n_action_steps
MOVING_S = 0.3
FIRST_STEP = 6
"""Control steps before the first observation of a pair."""


class Scripted(Session):
    """An episode in which we say what changed."""

    def __init__(self, plan: DepthPlan) -> None:
        super().__init__(seed=0)
        self.scripted = plan

    def plan(self, _image: np.ndarray, _num_codes: int) -> DepthPlan:
        """What we say."""
        return self.scripted


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two observations of an episode, one plan apart."""

    policy: MolmoAct2Policy
    before: Observation
    after: Observation

    @cached_property
    def codes(self) -> np.ndarray:
        """The depth map of the first."""
        return self.thought(self.before, Session(0)).codes

    @cached_property
    def likeness(self) -> np.ndarray:
        """[cells] cosine between the two main images."""
        side = round(self.policy.config.num_depth_codes**0.5)
        old, new = (cells_of(next(iter(one.images.values())), side) for one in (self.before, self.after))
        return (old * new).sum(1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1))

    def thought(self, observation: Observation, session: Session):
        """The depth of a chunk."""
        return self.policy.act(observation, think=True, session=session).depth

    def plan(self, share: float) -> DepthPlan:
        """A plan by which this share of the cells is said anew."""
        changed = np.zeros(len(self.codes), bool)
        changed[np.argsort(self.likeness)[: round(share * len(self.codes))]] = True
        return DepthPlan(draft=self.codes, changed=changed, num_kept=0, is_first=False)

    def act(self) -> None:
        """Without a thought."""
        self.policy.act(self.after, seed=0)

    def think(self, plan: DepthPlan) -> int:
        """With a thought; returns the passes that it took."""
        return self.thought(self.after, Scripted(plan)).passes

    def think_first(self) -> int:
        """The first thought of an episode."""
        return self.thought(self.after, Session(0)).passes

    def think_one_by_one(self, plan: DepthPlan) -> int:
        """The same in one pass for every changed cell."""
        policy, model = self.policy, self.policy.model
        family, stats = policy.processor.vocabulary.depth, policy.processor.tag(None)
        assert family is not None
        inputs = policy.encode(self.after, think=True).inputs
        features = model.image_features(inputs, policy.processor.images.grid)
        speech = Speech.begin(model, inputs, features, room=len(plan.draft) + 2)
        _, passes = think_step_by_step(speech, family, previous=plan.draft, changed=plan.changed)
        speech.say([family.end])
        context = model.expert_context(*speech.transcript.context())
        noise = torch.randn(1, stats.action_horizon, model.config.max_action_dim, generator=Session(0).generator)
        modulation = model.modulation(flow.time_grid(model.config.flow_matching_num_steps))
        model.sample_actions(noise, context, modulation, action_dim=stats.action.width)
        return passes + 2

    def think_ahead(self) -> float:
        """Seconds that a chunk takes whose map is said afterwards, while the robot moves."""
        session = Session(0)
        session.depth = DepthMemory(image=next(iter(self.before.images.values())), codes=self.codes)
        time.sleep(MOVING_S)
        begin = time.perf_counter()
        self.policy.act(self.after, think=True, think_ahead=True, session=session)
        seconds = time.perf_counter() - begin
        assert session.depth is not None
        return seconds

    def act_after_moving(self) -> float:
        """Seconds that a chunk without a thought takes after the same pause, in which the processor cools down."""
        time.sleep(MOVING_S)
        begin = time.perf_counter()
        self.act()
        return time.perf_counter() - begin


def pairs(policy: MolmoAct2Policy, num_seeds: int) -> list[Pair]:
    """Pairs of observations of every task."""
    environment = make("so101")
    expert = make_expert("so101", environment)
    found = []
    for task in environment.tasks:
        for seed in range(3_000_000, 3_000_000 + num_seeds):
            environment.reset(seed=seed, task=task)
            seen = []
            for _ in range(FIRST_STEP + STEPS_BETWEEN_PLANS + 1):
                observation = environment.observe()
                seen.append(observation)
                environment.step(expert.act(observation).actions[0])
            found.append(Pair(policy=policy, before=seen[FIRST_STEP], after=seen[-1]))
    environment.close()
    return found


def everyone(act: Callable[[Pair], object], of: Sequence[Pair]) -> None:
    """One chunk of every pair."""
    for pair in of:
        act(pair)


def benchmark(settings: Settings) -> None:
    """Measure every share of changed cells."""
    policy = load_policy("nano-think")
    measured = pairs(policy, num_seeds=1 if settings.smoke else 3)
    plans = {share: [pair.plan(share) for pair in measured] for share in SHARES}
    ways: dict[str, Callable[[], object]] = {"plain": partial(everyone, Pair.act, measured)}
    ways["first"] = partial(everyone, Pair.think_first, measured)
    for share, wanted in plans.items():
        ways[f"think {share}"] = partial(each, Pair.think, measured, wanted)
        ways[f"twin {share}"] = partial(each, Pair.think_one_by_one, measured, wanted)
    seconds = {name: taken / len(measured) for name, taken in in_turns(ways, settings).items()}
    plain, whole = seconds["plain"], seconds[f"twin {SHARES[-1]}"]

    def row(name: str, taken: float, twin: float, passes: list[int], twin_passes: list[int]) -> list[str]:
        return [name, f"{np.mean(passes):.1f}", f"{np.mean(twin_passes):.0f}", milliseconds(taken), milliseconds(twin),
                f"{taken / plain:.2f}", f"{100 * taken / whole:.0f} %"]  # fmt: skip

    rows = [
        row(
            f"{share:.0%}", seconds[f"think {share}"], seconds[f"twin {share}"],
            each(Pair.think, measured, wanted), each(Pair.think_one_by_one, measured, wanted),
        )
        for share, wanted in plans.items()
    ]  # fmt: skip
    rows.append(
        row(
            "no map before", seconds["first"], whole,
            [pair.think_first() for pair in measured], each(Pair.think_one_by_one, measured, plans[SHARES[-1]]),
        )
    )  # fmt: skip
    columns = ("cells changed", "passes", "of the twin", "ms", "ms of the twin", "of plain", "of all one by one")
    print_table(f"Thinking: plain is {milliseconds(plain)} ms a chunk; {len(measured)} pairs", columns, rows)
    both = [(pair.think_ahead(), pair.act_after_moving()) for _ in range(settings.rounds) for pair in measured]
    ahead, at_once = np.median(both, axis=0).tolist()
    print(
        f"\nThinking ahead, each call after {MOVING_S} s in which the robot moves: {milliseconds(ahead)} ms until the "
        f"action, plain {milliseconds(at_once)} ms, {ahead / at_once:.2f} of plain."
    )
    batches(policy, measured, settings)


def each(act: Callable[[Pair, DepthPlan], int], of: Sequence[Pair], plans: Sequence[DepthPlan]) -> list[int]:
    """One chunk of every pair by its plan; the passes that they took."""
    return [act(pair, plan) for pair, plan in zip(of, plans, strict=True)]


def batches(policy: MolmoAct2Policy, measured: Sequence[Pair], settings: Settings) -> None:
    """All robots in one batch against one after the other."""
    observations, plans = [pair.after for pair in measured], [pair.plan(0.3) for pair in measured]

    def together() -> None:
        policy.act(observations, think=True, session=[Scripted(plan) for plan in plans])

    seconds = in_turns({"together": together, "apart": partial(each, Pair.think, measured, plans)}, settings)
    print(
        f"\n{len(measured)} robots, 30 % changed: {milliseconds(seconds['together'])} ms in one batch, "
        f"{milliseconds(seconds['apart'])} ms one after the other, {seconds['apart'] / seconds['together']:.2f} x."
    )


if __name__ == "__main__":
    measure(benchmark, __doc__)
