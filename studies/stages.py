"""The paper's stages in small, on two CPU cores: what each of them, and each choice in them, is worth (docs/stages.md).

    python studies/stages.py all             # every run that is not done yet, then every measurement
    python studies/stages.py train NAME      # one run; a stopped one goes on
    python studies/stages.py measure NAME    # success of one checkpoint on the simulated SO-101
    python studies/stages.py table           # what was measured, as a table

The recordings and scenes are those of `molmoact2 train nano-so101`, in runs/nano-so101; the real data are BridgeData (converted
with `molmoact2 data convert`) and Unitree G1, in the folders given below. Everything goes to runs/stages.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmoact2.data.card import card_for
from molmoact2.data.datasets import open_dataset
from molmoact2.data.robot_stream import RobotSource, RobotStream, open_source
from molmoact2.data.scenes import ScenePool
from molmoact2.data.statistics import column_statistics
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs.labels import THINGS
from molmoact2.evaluation.measure import measure
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.statistics import wilson_interval
from molmoact2.inference import load_policy
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.training.config import StageConfig, TrainConfig
from molmoact2.training.examples import Stream
from molmoact2.training.fresh import tag_entry
from molmoact2.training.nano import IMAGE_SIZE, nano_config, new_nano, pretraining_config
from molmoact2.training.placed import PlacedStream, SceneStream
from molmoact2.training.pointing import PointingHeads
from molmoact2.training.recipes import NANO_FINE_TUNE, NANO_POST_TRAIN, NANO_PRETRAIN, RECIPES
from molmoact2.training.scene_questions import SceneQuestions
from molmoact2.training.start import Start
from molmoact2.training.trainer import TrainData, Trainer

SIMULATED = Path("runs/nano-so101")
BRIDGE, G1 = Path("runs/stages/bridge"), Path("../shared/data/g1_bottle")
OUTPUT = Path("runs/stages")
TASKS = ("pick", "plate", "push")
SHORT_STEPS = 600
"""Steps of the runs that compare one choice."""
SHORT = replace(NANO_FINE_TUNE, num_steps=SHORT_STEPS, flow_samples=4)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    start: str | None
    """Run whose checkpoint it starts from; None starts from nothing."""
    stage: StageConfig
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the action expert's config that differ."""
    speaks: bool = True
    """Whether its checkpoint says actions."""


RUNS = {
    "er": Run(start=None, stage=RECIPES["nano-er"].train.stages[0], speaks=False),
    "pretrain": Run(start="er", stage=replace(NANO_PRETRAIN, num_steps=2_000)),
    "base": Run(start="pretrain", stage=SHORT),
    "insulated": Run(start="pretrain", stage=replace(SHORT, insulate=True)),
    "post-train": Run(start="pretrain", stage=replace(NANO_POST_TRAIN, num_steps=1_500)),
    "last-hidden": Run(start="pretrain", stage=SHORT, changes={"conditioning": "last_hidden"}),
    "k1": Run(start="pretrain", stage=replace(SHORT, flow_samples=1)),
    "not-said": Run(start="pretrain", stage=replace(SHORT, says_actions=False), speaks=False),
    "head-kv": Run(start="pretrain", stage=SHORT, changes={"conditioning": "head_kv"}),
    "fine-tune": Run(start="post-train", stage=replace(NANO_FINE_TUNE, num_steps=1_500)),
    "k8": Run(start="pretrain", stage=replace(SHORT, flow_samples=8)),
    "from-er": Run(start="er", stage=SHORT),
    "no-scenes": Run(start="pretrain", stage=replace(SHORT, examples_per_step={"robot": 32})),
    "k2": Run(start="pretrain", stage=replace(SHORT, flow_samples=2)),
}
"""In the order in which they are run."""


def sources() -> dict[str, RobotSource]:
    """The recordings and the two real datasets, their pictures decoded once at the network's size."""
    tabletop, bridge, g1 = open_dataset(SIMULATED / "data"), open_dataset(BRIDGE), open_dataset(G1)
    cached = {"cache_dir": OUTPUT / "cache", "image_size": IMAGE_SIZE}
    return {
        "robot": open_source(tabletop, card_for(tabletop, SO101_TABLETOP.tag), cache_dir=SIMULATED / "cache"),
        "bridge": open_source(bridge, card_for(bridge, cameras=("image_0", "image_1")), **cached),
        "g1": open_source(g1, card_for(g1, "new:unitree_g1"), episodes=g1.episodes_with_video, **cached),
    }


def streams(found: Mapping[str, RobotSource]) -> dict[str, Stream]:
    """What the runs learn from, by name."""
    pool = ScenePool.load(SIMULATED / "scenes.npz")
    return {
        "robot": PlacedStream(stream=RobotStream([found["robot"]], [1.0], seed=0), things=THINGS),
        "real": RobotStream([found["bridge"], found["g1"]], [0.5, 0.5], seed=0),
        "scenes": scene_stream(pool),
        "questions": SceneQuestions(pool=pool, seed=0),
    }


def held_out() -> dict[str, Stream]:
    """What is measured along the way."""
    pool = ScenePool.load(SIMULATED / "held-out.npz")
    return {"scenes": replace(scene_stream(pool), in_order=True), "questions": SceneQuestions(pool=pool, seed=1)}


def scene_stream(pool: ScenePool) -> SceneStream:
    """Scenes of the tabletop."""
    robot = SO101_TABLETOP
    return SceneStream(pool=pool, tag=robot.tag, horizon=robot.action_horizon, action_dim=6, seed=0)


def robots(found: Mapping[str, RobotSource]) -> dict[str, dict[str, Any]]:
    """What the network is told about each robot."""
    return {
        source.card.tag: tag_entry(
            source.card.robot,
            state_stats=column_statistics(source.states),
            action_stats=column_statistics(source.actions),
        )
        for source in found.values()
    }


def fitted(found: Mapping[str, RobotSource], start: Start) -> ActionTokenizer:
    """An action tokenizer for all three robots."""

    def chunks(source: RobotSource, count: int) -> np.ndarray:
        stream, scaling = RobotStream([source], [1.0], seed=1), start.processor.tag(source.card.tag)
        return scaling.action_scaling.normalize(np.stack([stream.example(i).actions for i in range(count)]))

    return fit_action_tokenizer(
        [chunks(found["robot"], 8_000), chunks(found["bridge"], 400), chunks(found["g1"], 1_000)],
        vocab_size=pretraining_config().num_action_tokens,
        longest_horizon=pretraining_config().max_action_horizon,
    )


def begin(run: Run, found: Mapping[str, RobotSource]) -> tuple[Start, PointingHeads]:
    """The network that a run starts from."""
    if run.start is None:
        model, processor = new_nano(robots(found), seed=0, config=pretraining_config())
        heads = PointingHeads.new(model.config.text_config.hidden_size, len(THINGS), seed=0)
        return Start(model=model, processor=processor, action_tokenizer=None), heads
    folder = OUTPUT / run.start / "checkpoint"
    start, heads = Start.of(load_policy(folder)).with_robots(robots(found)), PointingHeads.load(folder)
    if start.action_tokenizer is None:
        start = replace(start, action_tokenizer=fitted(found, start))
    if run.stage.flow_samples and start.model.action_expert is None:
        expert = nano_config().action_expert_config
        assert expert is not None
        mode, sampling = "both" if run.speaks else "continuous", nano_config()
        start = start.with_action_expert(
            replace(expert, **run.changes),
            seed=0,
            action_mode=mode,
            flow_matching_num_steps=sampling.flow_matching_num_steps,
            flow_matching_noise_scale=sampling.flow_matching_noise_scale,
        )
    return start, heads


def train(name: str) -> None:
    """Do what of a run is not done yet."""
    run, found = RUNS[name], sources()
    start, heads = begin(run, found)
    config = TrainConfig(stages=(run.stage,), compile=True, snapshot_every=10**9)
    needed = {stream: made for stream, made in streams(found).items() if stream in run.stage.examples_per_step}
    data = TrainData(streams=needed, held_out=held_out())
    trainer = Trainer(start, data, config, OUTPUT / name, heads=heads, origin=run.start or "nothing")
    trainer.resume()
    trainer.run()
    trainer.export(OUTPUT / name / "checkpoint")


def measure_success(name: str, mode: str, episodes: int) -> None:
    """Success of a checkpoint, in one mode."""
    choice = PolicyChoice(
        name=str(OUTPUT / name / "checkpoint"),
        environment="so101",
        num_threads=1,
        mode=mode,  # type: ignore[arg-type]
    )
    records = measure(choice, OUTPUT / name / mode, tasks=TASKS, num_episodes=episodes, num_workers=2)
    won = {task: [bool(r["success"]) for r in records if r["task"] == task] for task in TASKS}
    success = {task: [sum(results), len(results)] for task, results in won.items()}
    (OUTPUT / name / f"{mode}.json").write_text(json.dumps(success))


def modes(run: Run) -> list[str]:
    """How a run's checkpoint can act."""
    return ["continuous"] * bool(run.stage.flow_samples) + ["discrete"] * (run.speaks and run.stage.says_actions)


def table() -> str:
    """Successes of all runs and modes, with 95 % Wilson intervals, as Markdown."""
    lines = ["| run | mode | " + " | ".join(TASKS) + " | all |", "|---|---|" + "---|" * (len(TASKS) + 1)]
    for name, run in RUNS.items():
        for mode in modes(run):
            file = OUTPUT / name / f"{mode}.json"
            if file.exists():
                success = json.loads(file.read_text())
                won, tried = (sum(column) for column in zip(*success.values(), strict=True))
                low, high = wilson_interval(won, tried)
                cells = " | ".join(f"{w} / {n}" for w, n in success.values())
                lines.append(
                    f"| {name} | {mode} | {cells} | {100 * won / tried:.0f} % ({100 * low:.0f} - {100 * high:.0f}) |"
                )
    return "\n".join(lines)


def everything() -> None:
    """Train what can be trained, two runs at a time on one thread each, and measure what has been trained."""
    for name, run in RUNS.items():
        if not (OUTPUT / name / "checkpoint" / "config.json").exists():
            subprocess.run([sys.executable, __file__, "train", name], check=True)
        for mode in modes(run):
            if not (OUTPUT / name / f"{mode}.json").exists():
                subprocess.run([sys.executable, __file__, "measure", name, mode, "100"], check=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["train", name]:
            train(name)
        case ["measure", name, mode, episodes]:
            measure_success(name, mode, int(episodes))
        case ["table"]:
            print(table())
        case ["all"]:
            everything()
        case _:
            sys.exit(__doc__)
