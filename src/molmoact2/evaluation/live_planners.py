"""Who plans in a live run: a server, or a checkpoint in this process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from molmoact2.client import AskOptions, Client, RemotePlanner
from molmoact2.control.loop import Wishes
from molmoact2.control.plan import Planner, PlanRequest
from molmoact2.control.planners import Answer, LocalPlanner, PunctualPlanner
from molmoact2.control.robot import Clock
from molmoact2.embodiments import Embodiment
from molmoact2.evaluation.checkpoint import CheckpointEpisode
from molmoact2.inference import load_policy
from molmoact2.serving.cards import robot_card
from molmoact2.tokens.reading import require
from molmoact2.types import ActionChunk, Committed
from molmoact2.wire.messages import RobotCard, Telemetry

PATIENCE = 3 / 4
"""Share of a plan's rows after which there should be a new one at the latest: the others bridge a late answer."""


@dataclass(frozen=True, kw_only=True)
class PlannerSource:
    """Something that plans, ready for any number of episodes."""

    label: str
    """What people call it."""
    card: RobotCard
    """What its checkpoint knows about the robot."""
    rows_per_plan: int
    """Rows that were executed between two looks when the policy was trained, as far as a late answer lets one."""
    start: Callable[[int | None], Planner]
    """Begins an episode: forgets the one before, and draws noise from this seed, or from any."""
    wishes: Wishes = tuple
    """Of whoever is at the server's dashboard."""
    report: Callable[[Telemetry], None] = lambda _telemetry: None


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How plans are asked for."""

    is_real_time: bool = False
    """Whether a plan continues the rows that are executed meanwhile."""
    added_latency_s: float = 0.0
    """For which every plan is held back."""
    num_flow_steps: int | None = None
    """Of the sampler; the checkpoint's own number by default."""
    think: bool = False
    """Whether the depth map is predicted first."""
    think_ahead: bool = False
    """Whether it acts on the map of the look before, and says that of this one while the arm moves."""

    def __post_init__(self) -> None:
        require(self.think or not self.think_ahead, "To think ahead is a way to think: ask for --think as well.")

    def options(self, horizon: int) -> AskOptions:
        """Of every question to a policy that plans `horizon` rows."""
        options = AskOptions(num_action_steps=horizon, num_steps=self.num_flow_steps)
        return options | AskOptions(think=self.think, think_ahead=self.think_ahead)

    def check(self, name: str, *, can_think: bool) -> None:
        """ValueError where a policy is asked to think and was not trained to."""
        require(can_think or not self.think, f"{name} was not trained to think: ask it without --think.")


def server_source(client: Client, embodiment: Embodiment, clock: Clock, asking: Asking) -> PlannerSource:
    """Ask a server, through a client that whoever made it closes.

    Raises ValueError where its checkpoint does not know the robot, or means other joints by it; ConnectionLost or
    Refused where there is no connection.
    """
    asking.check(client.welcome.model, can_think=client.welcome.can_think)
    known = {card.tag for card in client.welcome.robots}
    card = client.robot(embodiment.tag if embodiment.tag in known else None)
    require(
        card.action_names == embodiment.action_names and card.control_hz == embodiment.control_hz,
        f"The server's {card.tag!r} moves {', '.join(card.action_names)} at {card.control_hz:g} Hz, this robot "
        f"{', '.join(embodiment.action_names)} at {embodiment.control_hz:g} Hz. Serve a checkpoint of this robot.",
    )

    def start(seed: int | None) -> Planner:
        client.reset(seed)
        return RemotePlanner(
            client,
            clock,
            real_time=asking.is_real_time,
            added_latency_s=asking.added_latency_s,
            **(AskOptions(embodiment=card.tag) | asking.options(card.action_horizon)),
        )

    return PlannerSource(
        label=client.welcome.model,
        card=card,
        rows_per_plan=rows_per_plan(card.n_action_steps, card.action_horizon),
        start=start,
        wishes=client.wishes,
        report=client.report,
    )


def checkpoint_source(
    name: str, embodiment: Embodiment, clock: Clock, asking: Asking, *, is_virtual: bool = False
) -> PlannerSource:
    """Load a checkpoint here; ValueError where there is none of that name, or it does not know the robot.

    With `is_virtual` time, a plan comes after exactly the added latency, whatever the computer takes.
    """
    policy = load_policy(name)
    asking.check(name, can_think=policy.can_think)
    tag = policy.processor.tag(embodiment.tag)
    options = dict(asking.options(tag.action_horizon))

    def start(seed: int | None) -> Planner:
        episode = CheckpointEpisode(
            policy=policy, embodiment=tag.tag, options=options, session=policy.new_session(seed)
        )
        answer: Answer = partial(answer_of, episode, is_real_time=asking.is_real_time)
        period_s = 1 / embodiment.control_hz
        if is_virtual:
            return PunctualPlanner(answer, clock, period_s=period_s, latency_s=asking.added_latency_s)
        return LocalPlanner(answer, clock, period_s=period_s, added_latency_s=asking.added_latency_s)

    return PlannerSource(
        label=name,
        card=robot_card(tag),
        rows_per_plan=rows_per_plan(tag.n_action_steps, tag.action_horizon),
        start=start,
    )


def answer_of(episode: CheckpointEpisode, request: PlanRequest, *, is_real_time: bool) -> ActionChunk:
    """What a checkpoint says to a request."""
    if not is_real_time:
        return episode.act(request.observation)
    committed = Committed(actions=request.remaining, delay=request.delay)
    return replace(episode, options={**episode.options, "committed": committed}).act(request.observation)


def rows_per_plan(n_action_steps: int, horizon: int) -> int:
    """Rows to execute before the next plan."""
    return max(1, min(n_action_steps, int(PATIENCE * horizon)))
