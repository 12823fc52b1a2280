"""Is this a question that the policy can be asked? Decided before it waits, so that it takes nobody's time."""

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.inference.real_time import checked_rows
from molmoact2.inference.request import Request
from molmoact2.inference.session import Session
from molmoact2.processing.norm_stats import TagStats
from molmoact2.processing.observation import checked_images, checked_instruction, checked_state
from molmoact2.serving.computing import as_taken
from molmoact2.serving.exchange import Question
from molmoact2.serving.warm_up import modes_served
from molmoact2.tokens.reading import require
from molmoact2.types import Observation
from molmoact2.wire.limits import Limits, WireError

LARGEST_SEED = 2**63 - 1


def check_question(policy: MolmoAct2Policy, question: Question, limits: Limits) -> None:
    """Refuse what `MolmoAct2Policy.act` would refuse; WireError "unfit" says why."""
    try:
        stats = policy.processor.tag(question.embodiment or None)
        check_observation(policy, question.observation, stats)
        check_options(policy, question, stats, limits)
    except ValueError as error:
        raise WireError(str(error), code="unfit") from error


def check_observation(policy: MolmoAct2Policy, observation: Observation, stats: TagStats) -> None:
    """ValueError unless cameras, state and instruction are those of the embodiment."""
    taken = as_taken(observation, stats.tag, stats.camera_keys)
    checked_images(taken.images, stats.camera_keys)
    checked_state(taken.state, width=stats.state.width, names=stats.state.names)
    checked_instruction(taken.instruction, reserved=policy.processor.vocabulary.reserved)


def check_options(policy: MolmoAct2Policy, question: Question, stats: TagStats, limits: Limits) -> None:
    """ValueError unless the checkpoint can do what is asked, within the limits."""
    request = Request(**question.options, session=Session(), committed=question.committed)
    able = modes_served(policy)
    require(request.mode in able, f"mode must be one of {', '.join(able) or 'none'}, got {request.mode!r}.")
    require(policy.can_think or not request.think, "This checkpoint was not trained to think. Use think=False.")
    for name, value, largest in (
        ("num_action_steps", request.num_action_steps, stats.action_horizon),
        ("num_steps", request.num_steps, limits.num_flow_steps),
        ("seed", question.seed, LARGEST_SEED),
    ):
        require(value is None or 0 <= value <= largest, f"{name} must be at most {largest}, got {value}.")
    if question.committed is not None:
        checked_rows(question.committed, stats)
