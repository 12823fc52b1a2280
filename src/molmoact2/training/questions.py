"""The endless stream of questions from files, answered in words: what Molmo2-ER learns from, and robots learn along.

Example `number` depends on the seed and on that number alone, by the arithmetic of `molmoact2.data.turns`: files take
turns by their rates, and of each file every question comes once per epoch, in an order of its own for every epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.question_mixtures import QuestionGroup, read_question_mixture
from molmoact2.data.questions import QuestionFile, open_questions
from molmoact2.data.turns import Turns, key_of, permuted
from molmoact2.training.examples import QuestionExample


@dataclass(frozen=True, kw_only=True)
class QuestionSource:
    """The questions of one file, or the first of them."""

    name: str
    """For messages and fingerprints."""
    file: QuestionFile
    count: int
    """How many of its lines are used."""
    weight: float = 1.0
    """Factor on the loss of its examples."""

    def __len__(self) -> int:
        """Number of questions."""
        return self.count

    def example(self, position: int) -> QuestionExample:
        """The question on line `position`, counted from 0; ValueError, naming the line, if that is damaged."""
        question = self.file[position]
        return QuestionExample(
            images=self.file.images(question, position),
            question=question.question,
            answer=question.answer,
            origin=f"{self.name}, line {position + 1}",
            weight=self.weight * question.weight,
        )


class QuestionStream:
    """Questions of several files, in the shares that are asked for."""

    def __init__(self, sources: Sequence[QuestionSource], rates: Sequence[float], *, seed: int) -> None:
        """Mix `sources` by `rates`, which need not sum to 1.

        Raises:
            ValueError: a source is there twice, or has no rate above 0.
        """
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"The questions of {', '.join(twice)} are there twice. Name each file once.")
        require(len(rates) == len(names), f"Each of the {len(names)} sources needs a rate, got {len(rates)}.")
        self.sources, self.seed, self._turns = tuple(sources), seed, Turns(rates, seed=seed)

    @property
    def rates(self) -> NDArray[np.float64]:
        """[sources] share of each in the examples."""
        return self._turns.rates

    @property
    def fingerprints(self) -> dict[str, str]:
        """Source -> what changes when it does: its text, its images, how much of it there is in the mixture."""
        return {
            source.name: f"{source.file.fingerprint}, {source.count} x {source.weight:g} at {rate:.6g}"
            for source, rate in zip(self.sources, self.rates, strict=True)
        }

    def place(self, number: int) -> tuple[QuestionSource, int]:
        """Where example `number` is from: the source, and which of its questions it is."""
        index, visit = self._turns.at(number)
        source = self.sources[index]
        epoch, turn = divmod(visit, len(source))
        return source, permuted(turn, len(source), key_of(source.name, self.seed, epoch))

    def example(self, number: int) -> QuestionExample:
        """Example `number`; ValueError, naming file and line, if it or an image has been damaged."""
        source, position = self.place(number)
        return source.example(position)


def open_question_files(files: Sequence[Path], *, seed: int, show_progress: bool = True) -> QuestionStream:
    """The questions of files or folders, each by the square root of its size; or of one mixture, a TOML file.

    See `molmoact2.data.questions` and `molmoact2.data.question_mixtures` for what they hold.

    Raises:
        ValueError: naming the file, and the line, of what is missing or malformed.
    """
    mixtures = [path for path in files if path.suffix == ".toml"]
    require(
        len(files) == 1 or (bool(files) and not mixtures),
        f"Questions are files, or one mixture of them (.toml), got {', '.join(map(str, files)) or 'none'}.",
    )
    plain = QuestionGroup(name="questions", rate=1.0, files=dict.fromkeys(files))
    groups = read_question_mixture(files[0]) if mixtures else (plain,)
    return question_stream(groups, seed=seed, show_progress=show_progress)


def question_stream(groups: Sequence[QuestionGroup], *, seed: int, show_progress: bool = True) -> QuestionStream:
    """The questions of all groups; within a group, every file counts by the square root of its questions."""
    sources: list[QuestionSource] = []
    rates: list[float] = []
    for group in groups:
        opened = [
            _source(open_questions(path, show_progress=show_progress), most, group.weight)
            for path, most in group.files.items()
        ]
        sizes = np.sqrt([len(source) for source in opened])
        rates += (group.rate * sizes / sizes.sum()).tolist()
        sources += opened
    return QuestionStream(sources, rates, seed=seed)


def _source(file: QuestionFile, most: int | None, weight: float) -> QuestionSource:
    count = len(file) if most is None else min(most, len(file))
    return QuestionSource(name="/".join(file.path.resolve().parts[-2:]), file=file, count=count, weight=weight)
