"""`molmoact2 doctor`: compares a robot, or a recording of one, with a checkpoint, before anything moves."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from molmoact2.types import ActionChunk, Observation

if TYPE_CHECKING:
    from molmoact2.robots.doctor.case import Trial
    from molmoact2.robots.doctor.sample import Sample
    from molmoact2.wire.messages import RobotCard

Act: TypeAlias = Callable[[Observation], ActionChunk]

PATIENCE_S = 10.0
"""How long a server is waited for."""
INSTRUCTION = "pick up the object"
"""Of the trial question; nothing of its answer is executed."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Compare a robot with a checkpoint before anything moves.

    Reads the joints and cameras for some seconds, or an episode of a dataset, and compares them with what the
    checkpoint expects: cameras, joints, units, calibration, rates, latency. Commands nothing. Exit code 0: nothing
    speaks against moving; 1: problems; 2: it could not look.
    """

    robot: str | None = None
    """so101, yam or droid; or so101-sim or dry-run, which need no hardware."""
    settings: Path | None = None
    """The robot's settings, a TOML or JSON file; docs/robots.md says what is in it."""
    dataset: str | None = None
    """Look at a recording instead of a robot: folder of a LeRobot dataset, or its hub id."""
    episode: int = 0
    """Of the dataset."""
    server: str | None = None
    """Compare with the checkpoint of a server, for instance ws://127.0.0.1:8000; it is asked once, for its latency."""
    token_file: Path | None = None
    """File with the server's token, where it wants one."""
    policy: str | None = None
    """Compare with a checkpoint here: folder, hub id, or a bundled policy such as nano-so101."""
    ask: bool = False
    """With --policy: load it and ask it once, for its latency. A server is always asked."""
    embodiment: str | None = None
    """Tag of the robot, where the checkpoint knows several."""
    seconds: float = 3.0
    """How long to look at a robot. Move its arm by hand meanwhile, and more can be seen."""
    reference: str | None = None
    """Dataset that the checkpoint learned from: its episode 0 shows what each camera should see."""
    execution: Literal["open-loop", "asynchronous"] = "asynchronous"
    """How the policy will be run: waiting for each chunk, or moving on meanwhile, as `molmoact2 run` does."""
    json: Path | None = None
    """Write the diagnosis to this file."""
    picture: Path | None = None
    """Write what each camera shows to this file, with the cameras' names."""

    def run(self) -> None:
        """Look, compare, report; SystemExit 1 where there are problems."""
        from rich.console import Console

        from molmoact2.robots.doctor.examine import diagnose
        from molmoact2.robots.doctor.report import print_diagnosis, write_contact_sheet

        with ExitStack() as stack:
            card, checkpoint, act = self._checkpoint(stack)
            sample = self._sample()
            trial = None if act is None else tried(act, sample, card)
        diagnosis = diagnose(
            sample,
            card,
            checkpoint=checkpoint,
            reference=None if self.reference is None else recorded(self.reference, 0),
            trial=trial,
            execution=self.execution,
        )
        print_diagnosis(diagnosis, Console())
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(json.dumps(diagnosis.document(), indent=2) + "\n")
        if self.picture is not None:
            write_contact_sheet(sample, self.picture)
        if not diagnosis.is_healthy:
            raise SystemExit(1)

    def _checkpoint(self, stack: ExitStack) -> "tuple[RobotCard, str, Act | None]":
        """What the checkpoint expects, its name, and how to ask it; a connection is open for as long as the stack."""
        match self.server, self.policy:
            case str(url), None:
                return served(url, self.token_file, self.embodiment, stack)
            case None, str(policy):
                return local(policy, self.embodiment, is_asked=self.ask)
        raise ValueError("Say what to compare with: either --server URL or --policy CHECKPOINT.")

    def _sample(self) -> "Sample":
        """What was looked at."""
        match self.robot, self.dataset:
            case str(robot), None:
                return watched(robot, self.settings, self.seconds)
            case None, str(dataset):
                return recorded(dataset, self.episode)
        raise ValueError("Say what to look at: either --robot NAME or --dataset FOLDER.")


def served(
    url: str, token_file: Path | None, embodiment: str | None, stack: ExitStack
) -> "tuple[RobotCard, str, Act | None]":
    """The card that a server gives, and how to ask it. ValueError where it cannot be reached."""
    from molmoact2.client import Client, ConnectionLostError, RefusedError

    token = None if token_file is None else token_file.read_text(encoding="utf-8").strip()
    client = stack.enter_context(Client(url, token=token, timeout_s=PATIENCE_S))
    try:
        welcome, card = client.welcome, client.robot(embodiment)
    except (ConnectionLostError, RefusedError) as error:
        raise ValueError(f"The server at {url} does not answer: {error}") from None
    return card, f"{welcome.model} at {url}, as {card.tag}", partial(client.act, embodiment=card.tag)


def local(name: str, embodiment: str | None, *, is_asked: bool) -> "tuple[RobotCard, str, Act | None]":
    """The card of a checkpoint here, read without its weights unless it is asked too."""
    from molmoact2.inference import load_policy
    from molmoact2.inference.checkpoint import locate
    from molmoact2.processing.norm_stats import NormStats
    from molmoact2.serving.cards import robot_card
    from molmoact2.tokens.reading import parse_json

    folder, _ = locate(name, None)
    document = parse_json((folder / "norm_stats.json").read_bytes(), f"{folder}/norm_stats.json")
    stats = NormStats.read(document).tag(embodiment)
    act = partial(load_policy(folder).act, embodiment=stats.tag) if is_asked else None
    return robot_card(stats), f"{name}, as {stats.tag}", act


def watched(name: str, settings: Path | None, seconds: float) -> "Sample":
    """Some seconds of a robot; simulated ones are looked at in simulated time. ValueError where it does not answer."""
    from molmoact2.control.clock import VirtualClock, WallClock
    from molmoact2.control.robot import RobotError
    from molmoact2.robots.catalog import entry_of, open_robot
    from molmoact2.robots.doctor.sample import sample

    entry = entry_of(name)
    clock = WallClock() if entry.is_real else VirtualClock()
    try:
        robot = open_robot(name, settings, clock)
        try:
            kind = "live" if entry.is_real else "simulated"
            return sample(robot, seconds, source=f"{name}, {entry.summary}", kind=kind)
        finally:
            robot.close()
    except RobotError as error:
        raise ValueError(f"The robot does not answer. {error}") from None


def recorded(source: str, episode: int) -> "Sample":
    """An episode of a LeRobot dataset."""
    import numpy as np

    from molmoact2.data import open_dataset
    from molmoact2.data.card import feature_names
    from molmoact2.robots.doctor.sample import Sample, Watch

    dataset = open_dataset(source)
    watches = {camera: Watch(camera) for camera in dataset.cameras}
    frames = list[tuple[float, "np.ndarray", "np.ndarray"]]()
    for frame in dataset.stream([episode]):
        frames.append((frame.timestamp_s, frame.state, frame.action))
        for camera, image in frame.images.items():
            watches[camera].add(image, frame.timestamp_s)
    times, states, actions = (np.array(column, np.float64) for column in zip(*frames, strict=True))
    return Sample(
        source=f"{source}, episode {episode}",
        kind="recorded",
        names=feature_names(dataset, "observation.state"),
        times_s=times,
        states=states,
        actions=actions,
        views={camera: watch.view() for camera, watch in watches.items()},
    )


def tried(act: Act, sample: "Sample", card: "RobotCard") -> "Trial":
    """Ask the policy twice about the last moment of the sample, and time the second answer: the first one warms up."""
    import time

    from molmoact2.client import RefusedError
    from molmoact2.robots.doctor.case import Case, Trial

    case = Case(sample=sample, card=card)
    wanted = case.expected_cameras or tuple(case.given_cameras.values())
    images = {known: sample.views[name].picture for name, known in case.given_cameras.items() if known in wanted}
    observation = Observation(images=images, state=sample.states[-1].astype("float32"), instruction=INSTRUCTION)
    try:
        act(observation)
        began = time.perf_counter()
        chunk = act(observation)
    except (ValueError, RefusedError, ConnectionError, TimeoutError) as error:
        return Trial(refusal=str(error))
    return Trial(seconds=time.perf_counter() - began, first_action=chunk.actions[0].astype("float64"))
