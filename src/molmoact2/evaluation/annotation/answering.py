"""What can be asked: the words that an endpoint and a checkpoint share."""

from dataclasses import dataclass
from typing import Protocol

from molmoact2.evaluation.annotation.question import Question


class NoAnswerError(Exception):
    """The model was reached but gave no answer to this question, for the reason that is the message."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said, and what it cost."""

    text: str
    input_tokens: int = 0
    """As the model counts them; 0 where it does not say."""
    output_tokens: int = 0


class Annotator(Protocol):
    """A vision-language model."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def identity(self) -> str:
        """What its answers depend on, besides the question: an answer of another identity is another answer."""
        ...

    def answer(self, question: Question) -> Answer:
        """Answer a question, from any thread.

        Raises NoAnswerError where it has no answer to this question, and ValueError where it will have none to any.
        """
        ...
