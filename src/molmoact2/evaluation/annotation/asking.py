"""All episodes of a dataset: asked, asked again where the answer is no instruction, noted in a ledger.

The ledger has a line per episode, on disk as soon as the answer is there, under a key that changes with the pictures,
the words, the model and the settings. An episode whose key is there is not asked again, unless it failed. What people
decided in a review is a later line with the same key.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from time import perf_counter

from molmoact2.data.annotated_tasks import ALL_FROZEN
from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.annotation.answering import Annotator, Answer, NoAnswerError
from molmoact2.evaluation.annotation.answers import cleaned, complaint_about
from molmoact2.evaluation.annotation.parallel import as_they_finish
from molmoact2.evaluation.annotation.question import NOTE, WORDING, Question, draw_num_words
from molmoact2.evaluation.annotation.storyboard import take_storyboard
from molmoact2.evaluation.ledger import Ledger, Record

MOST_FAILURES_IN_A_ROW = 10
"""After so many, the model is taken to be unable, and the run ends."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How episodes are asked about."""

    seed: int = 0
    """Of the lengths that are asked for."""
    exponent: float = 2.0
    """Of the power law of the lengths; larger means shorter. The paper does not give its own."""
    image_side: int = 448
    """Longest side of the pictures, in pixels."""
    num_attempts: int = 3
    """Times that an episode is asked about before it counts as failed."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"The seed must be at least 0, got {self.seed}.")
        require(0 <= self.exponent <= 10, f"The exponent must be from 0 to 10, got {self.exponent}.")
        require(32 <= self.image_side <= 4096, f"Pictures must be 32 to 4096 pixels a side, got {self.image_side}.")
        require(self.num_attempts >= 1, f"An episode is asked about at least once, got {self.num_attempts} attempts.")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A model and how it is asked: what an answer depends on, besides the episode."""

    annotator: Annotator
    manner: Manner

    @cached_property
    def settings(self) -> str:
        """16 hex digits that change with the model, the wording and the manner, but for the number of attempts."""
        manner = replace(self.manner, num_attempts=1)
        return hashlib.sha256(f"{self.annotator.identity} {WORDING} {NOTE} {manner}".encode()).hexdigest()[:16]

    def question(self, dataset: LeRobotDataset, episode_index: int) -> Question:
        """What is asked about an episode."""
        return Question(
            storyboard=take_storyboard(dataset, episode_index, image_side=self.manner.image_side),
            num_words=draw_num_words(self.manner.seed, episode_index, self.manner.exponent),
        )

    def ask(self, question: Question) -> Record:
        """Ask until there is an instruction, or as often as is allowed; every answer is part of the record."""
        attempts, started = [self._attempt(question)], perf_counter()
        while attempts[-1]["complaint"] and len(attempts) < self.manner.num_attempts:
            complaint = attempts[-1]["complaint"] if attempts[-1]["answer"] else ""
            attempts.append(self._attempt(replace(question, complaint=complaint)))
        annotation = None if attempts[-1]["complaint"] else cleaned(attempts[-1]["answer"])
        seconds = round(perf_counter() - started, 3)
        return self.record(question, annotation) | {"attempts": attempts, "seconds": seconds}

    def _attempt(self, question: Question) -> Record:
        """One answer, as it was given, and what is wrong with it."""
        try:
            answer = self.annotator.answer(question)
        except NoAnswerError as error:
            answer, complaint = Answer(text=""), str(error)
        else:
            complaint = complaint_about(cleaned(answer.text))
        tokens = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}
        return {"answer": answer.text, "complaint": complaint, **tokens}

    def record(self, question: Question, annotation: str | None) -> Record:
        """What is noted about an episode."""
        board = question.storyboard
        return {
            "key": question.key(self.settings),
            "episode_index": board.episode_index,
            "task": board.task,
            "annotation": annotation,
            "num_words": question.num_words,
            "frozen": list(board.frozen),
            "model": self.annotator.name,
            "settings": self.settings,
            "attempts": [],
        }


def annotate(
    dataset: LeRobotDataset, asking: Asking, ledger: Ledger, *, episodes: Iterable[int], num_workers: int
) -> Iterator[Record]:
    """Yield the record of every episode, each as soon as it is there; new ones are in the ledger by then.

    Raises ValueError where the endpoint cannot be used, or nothing but failures comes back.
    """
    known, writing = settled(ledger.records), Lock()

    def settle(question: Question) -> Record:
        if not question.storyboard.views:
            return asking.record(question, ALL_FROZEN)
        key = question.key(asking.settings)
        if key in known:
            return known[key]
        record = asking.ask(question)
        with writing:
            ledger.append(record)
        return record

    questions = (asking.question(dataset, index) for index in episodes)
    failures_in_a_row = 0
    for record in as_they_finish(settle, questions, num_workers=num_workers):
        failures_in_a_row = (failures_in_a_row + 1) * has_failed(record)
        require(
            failures_in_a_row < MOST_FAILURES_IN_A_ROW,
            f"{failures_in_a_row} episodes in a row have no usable answer; the last one because "
            f"{reason_of(record)}. Is this a model that looks at pictures and follows instructions? "
            f"All answers are in {ledger.path}; the same command goes on.",
        )
        yield record


def settled(records: Iterable[Record]) -> dict[str, Record]:
    """Key -> last record of it, of those that need not be asked about: answered, or decided upon by people."""
    latest = {record["key"]: record for record in records}
    return {key: record for key, record in latest.items() if not has_failed(record)}


def has_failed(record: Record) -> bool:
    """Whether there is no instruction, although nobody has rejected one."""
    return record["annotation"] is None and "review" not in record


def reason_of(record: Record) -> str:
    """Why the last answer about an episode was refused; "" where there was none."""
    return "".join(attempt["complaint"] for attempt in record["attempts"][-1:])
