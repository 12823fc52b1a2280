"""How varied a set of instructions is, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from molmoact2.data.annotated_tasks import ALL_FROZEN
from molmoact2.evaluation.annotation.answers import NUM_WORDS
from molmoact2.evaluation.ledger import Record

LONGEST = NUM_WORDS[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Diversity:
    """Counts over the labels of episodes, one label per episode."""

    num_labels: int
    num_distinct: int
    """Labels that differ in more than case and white space."""
    num_distinct_words: int
    mean_words: float
    """Words per label; 0 without labels."""
    histogram: NDArray[np.int64]
    """[31] labels of so many words; the last counts all longer ones too."""

    @property
    def distinct_share(self) -> float:
        """Distinct labels per label, from 0 to 1: the measure of paper.md 1."""
        return self.num_distinct / max(1, self.num_labels)


def measure_diversity(labels: Sequence[str]) -> Diversity:
    """Count the labels of episodes."""
    plain = [" ".join(label.lower().split()) for label in labels]
    lengths = np.array([len(label.split()) for label in plain], np.int64)
    return Diversity(
        num_labels=len(plain),
        num_distinct=len(set(plain)),
        num_distinct_words=len({word.strip(".,;:!?\"'()") for label in plain for word in label.split()} - {""}),
        mean_words=float(lengths.sum()) / max(1, len(plain)),
        histogram=np.bincount(np.minimum(lengths, LONGEST), minlength=LONGEST + 1),
    )


def before_and_after(records: Sequence[Record]) -> tuple[Diversity, Diversity]:
    """Diversity of the recorded and of the new instructions of the same episodes."""
    both = [record for record in records if record["annotation"] not in (None, ALL_FROZEN)]
    return measure_diversity([r["task"] for r in both]), measure_diversity([r["annotation"] for r in both])


def diversity_table(before: Diversity, after: Diversity) -> Table:
    """Both side by side."""
    table = Table("", "recorded", "new", title="Instructions", title_justify="left")
    rows = {
        "episodes": lambda labels: f"{labels.num_labels:,}",
        "distinct": lambda labels: f"{labels.num_distinct:,} ({labels.distinct_share:.1%})",
        "distinct words": lambda labels: f"{labels.num_distinct_words:,}",
        "words, mean": lambda labels: f"{labels.mean_words:.1f}",
        "words, 10 / 50 / 90 %": lambda labels: " / ".join(map(str, word_quantiles(labels))),
    }
    for name, say in rows.items():
        table.add_row(name, say(before), say(after))
    return table


def word_quantiles(labels: Diversity) -> list[int]:
    """Words that 10, 50 and 90 % of the labels have at most."""
    below = np.cumsum(labels.histogram)
    return [int(np.searchsorted(below, share * labels.num_labels)) for share in (0.1, 0.5, 0.9)]
