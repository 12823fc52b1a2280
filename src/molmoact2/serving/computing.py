"""What the worker does: questions become chunks, by themselves or several at once.

The noise of an answer is a function of its seed alone, so a question can be asked again later, alone or together with
those that it was answered with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.inference.session import Session
from molmoact2.processing.observation import PREFIX
from molmoact2.serving.exchange import Question
from molmoact2.types import ActionChunk, NoActionError, Observation

PARTIAL_VIEWS: Mapping[str, tuple[str, ...]] = {"franka_droid": ("exterior_1_left", "wrist_left")}
"""Embodiment -> cameras, in order, that are enough although it has more: DROID is served with one outside view."""


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What became of a batch."""

    answers: Sequence[ActionChunk | ValueError]
    """One for each question: its chunk, or why there is none."""
    were_together: bool
    """False where the batch failed, and its questions were asked one by one."""


def compute(policy: MolmoAct2Policy, questions: Sequence[Question], memories: Sequence[Session]) -> Computed:
    """Answer questions together; where one of them spoils it, one by one, so that it harms no other."""
    try:
        return Computed(answers=answer_together(policy, questions, memories), were_together=True)
    except ValueError as error:
        if len(questions) == 1:
            return Computed(answers=[error], were_together=True)
    alone = [compute(policy, [question], [memory]) for question, memory in zip(questions, memories, strict=True)]
    return Computed(answers=[one.answers[0] for one in alone], were_together=False)


def answer_together(
    policy: MolmoAct2Policy, questions: Sequence[Question], memories: Sequence[Session]
) -> list[ActionChunk]:
    """The chunks of questions of one embodiment and equal options, all with committed rows or all without.

    `memories` are those of their episodes.

    Raises ValueError for what the policy cannot be asked, NoActionError where what it planned are no numbers.
    """
    first = questions[0]
    cameras = policy.processor.tag(first.embodiment).camera_keys
    for question, memory in zip(questions, memories, strict=True):
        memory.generator.manual_seed(question.seed)
    observations = [as_taken(question.observation, first.embodiment, cameras) for question in questions]
    committed = None if first.committed is None else [question.committed for question in questions]
    chunks = policy.act(observations, first.embodiment, session=memories, committed=committed, **first.options)
    for chunk in chunks:
        if not np.isfinite(chunk.actions).all():
            raise NoActionError("The checkpoint planned actions that are not finite numbers.")
    return chunks


def as_taken(observation: Observation, embodiment: str, cameras: Sequence[str]) -> Observation:
    """The observation as `MolmoAct2Policy.act` takes it: a view that is known to be enough goes as a plain list."""
    images, view = observation.images, PARTIAL_VIEWS.get(embodiment, ())
    has_more = {name.removeprefix(PREFIX) for name in cameras} > set(view)
    if not isinstance(images, Mapping) or not has_more or not view or set(images) != set(view):
        return observation
    return replace(observation, images=[images[name] for name in view])
