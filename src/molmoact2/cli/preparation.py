"""What a training command starts from and learns from: simulated data for nano, given data for everything else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from molmoact2.data.card import card_for
from molmoact2.data.datasets import open_dataset
from molmoact2.data.depth_run import CODEC_FOLDER
from molmoact2.data.errors import require
from molmoact2.data.mixture import Mixture, read_mixture
from molmoact2.data.robot_stream import RobotStream, open_source, open_stream
from molmoact2.data.scenes import ScenePool
from molmoact2.depth.codec import fingerprint, load_codec
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs.labels import THINGS
from molmoact2.evaluation.measure import measure
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.progress import follow
from molmoact2.evaluation.recording import record_dataset
from molmoact2.evaluation.setup import make_recording
from molmoact2.evaluation.summary import summarise
from molmoact2.inference import load_policy
from molmoact2.inference.checkpoint import locate
from molmoact2.model.config import ModelConfig
from molmoact2.model.sizes import released_config
from molmoact2.reasoning.scenes import render_scenes
from molmoact2.training.curves import SUCCESS_FILE
from molmoact2.training.examples import Stream
from molmoact2.training.nano import IMAGE_SIZE, nano_config, new_nano, pretraining_config
from molmoact2.training.placed import PlacedStream, SceneStream
from molmoact2.training.pointing import HEADS_FILE, PointingHeads
from molmoact2.training.questions import QuestionStream
from molmoact2.training.recipes import HELD_OUT_SEED, SCENE_SEED, Recipe, Simulation
from molmoact2.training.robots import RobotData, entries_of, fitted_tokenizer, open_robots
from molmoact2.training.scene_questions import SceneQuestions
from molmoact2.training.start import Start
from molmoact2.training.trainer import SNAPSHOTS, TrainData

HELD_OUT_SCENES = 256
HELD_OUT = ("scenes", "renamed")
"""Names of what is measured: scenes that nothing is learned from, and the same with another thing named."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a trainer needs beside its settings."""

    start: Start
    data: TrainData
    heads: PointingHeads | None = None


def prepare_nano(
    recipe: Recipe,
    folder: Path,
    *,
    start: str | None,
    mixture: str | None,
    depth_labels: Path | None,
    cache_dir: Path,
    num_workers: int,
) -> Prepared:
    """A small network and the simulated SO-101: recordings, scenes and questions, kept in `folder`.

    `mixture` adds datasets of real robots as the stream "real"; `cache_dir` keeps their images. `depth_labels` are the
    depth maps of the recordings, for recipes that ask for them.

    Raises:
        ValueError: the recipe asks for depth maps and there are none.
    """
    simulation = recipe.simulation
    assert simulation is not None
    check_depth_labels(recipe, depth_labels)
    recorded = demonstrations(simulation, folder, num_workers=num_workers, depth_labels=depth_labels)
    real = None
    if mixture is not None:
        real = open_stream(
            read_mixture(mixture),
            seed=recipe.train.seed,
            cache_dir=cache_dir,
            image_size=IMAGE_SIZE,
            choose=lambda dataset: dataset.episodes_with_video,
        )
    streams = simulated_streams(recipe, folder, recorded, num_workers=num_workers)
    streams |= {} if real is None else {"real": real}
    entries = entries_of(recorded) | ({} if real is None else entries_of(real))
    begun = with_codec_of(depth_labels, begin_nano(recipe, start, entries))
    sources = [*recorded.sources, *([] if real is None else real.sources)]
    if any(stage.says_actions for stage in recipe.train.stages) and begun.action_tokenizer is None:
        everything = RobotStream(sources, [1.0] * len(sources), seed=recipe.train.seed)
        begun = replace(begun, action_tokenizer=fitted_tokenizer(begun, everything, seed=recipe.train.seed))
    heads = PointingHeads.new(begun.model.config.text_config.hidden_size, len(THINGS), seed=recipe.train.seed)
    if start is not None and (locate(start, None)[0] / HEADS_FILE).exists():
        heads = PointingHeads.load(locate(start, None)[0])
    data = TrainData(
        streams=streams,
        held_out=held_out_streams(folder, num_workers=num_workers),
        fingerprints={source.name: source.fingerprint for source in sources},
    )
    return Prepared(start=begun, data=data, heads=heads)


def check_depth_labels(recipe: Recipe, folder: Path | None) -> None:
    """ValueError where a recipe asks for depth maps and there are none, or the other way round."""
    asks = any("depth" in style for stage in recipe.train.stages for style in stage.styles)
    require(
        asks == (folder is not None) and asks == (recipe.think is not None),
        "A recipe that teaches to say depth maps needs them, and only such a recipe does: make them with `molmoact2 "
        "depth label DATASET`, give the folder with --depth-labels, and use a recipe with a section [think] and styles "
        f"with depth, such as nano-think. Got depth labels {folder}, and styles "
        f"{sorted({style for stage in recipe.train.stages for style in stage.styles})}.",
    )


def with_codec_of(depth_labels: Path | None, start: Start) -> Start:
    """The network with the codec of the depth maps that it learns, if it does.

    Raises:
        ValueError: the labels are those of several codecs, or of another than the network has learned.
    """
    if depth_labels is None:
        return start
    folders = sorted(path for path in depth_labels.rglob(CODEC_FOLDER) if path.is_dir())
    codecs = {fingerprint(codec): codec for codec in map(load_codec, folders)}
    require(len(codecs) == 1, f"{depth_labels} must hold depth labels of one codec, found {sorted(codecs) or 'none'}.")
    return start.with_depth_codec(*codecs.values())


def demonstrations(
    simulation: Simulation, folder: Path, *, num_workers: int, depth_labels: Path | None = None
) -> RobotStream:
    """The scripted expert's episodes, recorded if they are not there, their images decoded once."""
    recording, protocol = make_recording(
        "so101",
        image_size=IMAGE_SIZE[0],
        tasks=simulation.tasks,
        num_episodes=simulation.num_episodes,
        perturbed_fraction=simulation.perturbed_fraction,
        first_seed=0,
    )
    follow(
        record_dataset(recording, folder / "data", protocol, num_workers=num_workers),
        title="Recording the expert",
        total=simulation.num_episodes * len(simulation.tasks),
        count=lambda records: sum(record["success"] for record in records),
        describe=lambda records: summarise(records).sentence,
    )
    dataset = open_dataset(folder / "data")
    card = card_for(dataset, SO101_TABLETOP.tag)
    source = open_source(dataset, card, cache_dir=folder / "cache", depth_labels=depth_labels)
    return RobotStream([source], [1.0], seed=0)


def simulated_streams(recipe: Recipe, folder: Path, recorded: RobotStream, *, num_workers: int) -> dict[str, Stream]:
    """Recordings with places, scenes to point at, and questions about them."""
    assert recipe.simulation is not None
    pool = rendered(folder / "scenes.npz", recipe.simulation.num_scenes, SCENE_SEED, num_workers)
    return {
        "robot": PlacedStream(stream=recorded, things=THINGS),
        "scenes": scene_stream(pool, seed=recipe.train.seed),
        "questions": SceneQuestions(pool=pool, seed=recipe.train.seed),
    }


def held_out_streams(folder: Path, *, num_workers: int) -> dict[str, Stream]:
    """What is measured along the way."""
    pool = rendered(folder / "held-out.npz", HELD_OUT_SCENES, HELD_OUT_SEED, num_workers)
    in_order = {name: replace(scene_stream(pool, seed=seed), in_order=True) for seed, name in enumerate(HELD_OUT)}
    return {**in_order, "questions": SceneQuestions(pool=pool, seed=1)}


def rendered(path: Path, count: int, seed: int, num_workers: int) -> ScenePool:
    """Scenes, rendered if they are not there."""
    return render_scenes(path, num_scenes=count, seed=seed, image_size=IMAGE_SIZE, num_workers=num_workers)


def scene_stream(pool: ScenePool, *, seed: int) -> SceneStream:
    """Scenes of the tabletop."""
    robot = SO101_TABLETOP
    return SceneStream(
        pool=pool, tag=robot.tag, horizon=robot.action_horizon, action_dim=len(robot.action_names), seed=seed
    )


def begin_nano(recipe: Recipe, start: str | None, entries: Mapping[str, Mapping[str, Any]]) -> Start:
    """The network that a nano recipe starts from, with an action expert if it is to flow."""
    seed, flows = recipe.train.seed, any(stage.flow_samples for stage in recipe.train.stages)
    template = nano_config()
    if start is None:
        config = template if recipe.action_mode == "continuous" else pretraining_config()
        model, processor = new_nano(entries, seed=seed, config=config)
        begun = Start(model=model, processor=processor, action_tokenizer=None)
    else:
        begun = Start.of(load_policy(start)).with_robots(entries)
    if recipe.think is not None:
        begun = begun.with_depth(recipe.think, seed=seed)
    if not flows or begun.model.action_expert is not None:
        return begun
    assert template.action_expert_config is not None
    return begun.with_action_expert(
        replace(template.action_expert_config, **recipe.expert),
        seed=seed,
        action_mode=recipe.action_mode,
        flow_matching_num_steps=template.flow_matching_num_steps,
        flow_matching_noise_scale=template.flow_matching_noise_scale,
    )


def measure_snapshots(output: Path, *, tasks: tuple[str, ...], num_episodes: int, num_workers: int) -> None:
    """Success of the policy as it was along the way, in `success.json`."""
    success = {}
    for snapshot in sorted((output / SNAPSHOTS).iterdir()):
        records = measure(
            PolicyChoice(name=str(snapshot), environment="so101", num_threads=1),
            output / "measured" / snapshot.name,
            tasks=tasks,
            num_episodes=num_episodes,
            num_workers=num_workers,
        )
        of_task = {task: [bool(r["success"]) for r in records if r["task"] == task] for task in tasks}
        success[int(snapshot.name.removeprefix("step-"))] = {task: [sum(w), len(w)] for task, w in of_task.items()}
    (output / SUCCESS_FILE).write_text(json.dumps(success, indent=1), encoding="utf-8")


def prepare_given(
    recipe: Recipe,
    mixture: Mixture | None,
    *,
    start: Start,
    questions: QuestionStream | None,
    cache_dir: Path | None,
    held_out_share: float = 0.0,
    keep_statistics: bool = False,
    depth_labels: Path | None = None,
) -> tuple[Prepared, RobotData | None]:
    """A loaded checkpoint and the data of a mixture, of questions, or of both; also returns the robots' data.

    `cache_dir` keeps decoded images; None decodes them whenever they are needed. `keep_statistics` leaves the robots
    that the checkpoint knows as it knows them, so that its actions go on meaning the same.

    Raises:
        ValueError: the network has no room for a robot, or no action tokenizer to learn to say actions with.
    """
    train, robots = recipe.train, None
    check_depth_labels(recipe, depth_labels)
    says_actions = any(stage.says_actions for stage in train.stages)
    if says_actions and start.processor.vocabulary.action is None:
        start = start.with_robot_tokens(seed=train.seed).with_single_views()
        start = start.with_config(replace(start.model.config, action_mode=recipe.action_mode), seed=train.seed)
    streams: dict[str, Stream] = {} if questions is None else {"questions": questions}
    held_out: dict[str, Stream] = {}
    if mixture is not None:
        robots = open_robots(
            mixture,
            seed=train.seed,
            cache_dir=cache_dir,
            image_size=start.processor.images.size,
            held_out_share=held_out_share,
            depth_labels=depth_labels,
        )
        known = start.processor.norm_stats.tags if keep_statistics and start.processor.norm_stats else {}
        entries = {tag: entry for tag, entry in entries_of(robots.train).items() if tag not in known}
        start = start.with_room_for(entries, seed=train.seed)
        streams["robot"] = robots.train
        held_out |= {} if robots.held_out is None else {"held_out": robots.held_out}
    if any(stage.flow_samples for stage in train.stages) and start.model.action_expert is None:
        released, config = released_config(), start.model.config
        assert released.action_expert_config is not None
        layers = config.text_config.num_hidden_layers
        start = start.with_action_expert(
            replace(released.action_expert_config, num_layers=layers, **recipe.expert),
            seed=train.seed,
            action_mode=recipe.action_mode,
            max_action_dim=max(config.max_action_dim, released.max_action_dim),
            max_action_horizon=max(config.max_action_horizon, released.max_action_horizon),
        )
    if recipe.think is not None:
        start = with_codec_of(depth_labels, start.with_depth(recipe.think, seed=train.seed))
    if says_actions and start.action_tokenizer is None:
        raise ValueError(
            "This recipe teaches to say actions, and the checkpoint has no action tokenizer. Name one with "
            "--action-tokenizer, for instance of your own: molmoact2 tokenizer fit."
        )
    fingerprints = ({} if robots is None else robots.fingerprints) | (
        {} if questions is None else dict(questions.fingerprints)
    )
    return Prepared(start=start, data=TrainData(streams=streams, held_out=held_out, fingerprints=fingerprints)), robots


def config_of(recipe: Recipe, start: str | None) -> ModelConfig:
    """The network that a run would train, for a plan: that of the checkpoint, of nano, or of the releases."""
    if start is not None:
        return load_policy(start).config
    nano = nano_config() if recipe.action_mode == "continuous" else pretraining_config()
    released, flows = released_config(), any(stage.flow_samples for stage in recipe.train.stages)
    plain = replace(released, add_action_expert=False, action_expert_config=None, action_mode="discrete")
    return {True: nano, False: released if flows else plain}[recipe.simulation is not None]
