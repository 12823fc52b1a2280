"""`molmoact2 data stats SOURCE...`: exact statistics of states and actions, of one dataset or of several together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.data.quantiles import Vectors
    from molmoact2.data.statistics import Statistics

SHOWN = ("min", "q01", "q10", "q50", "q90", "q99", "max", "mean", "std")
LEAST_WIDTH = 100
"""Characters of a line; numbers that are cut off help nobody."""


@dataclass(frozen=True)
class Stats:
    """Exact statistics of one dataset, or of several pooled.

    Every number is over all frames. Quantiles of several datasets are those of all their frames together, not averages
    of the quantiles of each; how far such averages would be off is said below the tables.
    """

    sources: Positional[tuple[str, ...]]
    """Folders of datasets, or their ids on the Hugging Face hub."""
    embodiment: str | None = None
    """Tag, card or new:NAME of the robot, for the names and columns that it has; the datasets' own names by default."""
    output: Path | None = None
    """File to write the statistics to, as JSON."""

    def run(self) -> None:
        """Print the tables, and write the file."""
        from molmoact2.data.errors import require
        from molmoact2.data.files import write_json
        from molmoact2.data.quantiles import averaging_error, pooled, pooled_statistics

        require(bool(self.sources), "Name at least one dataset.")
        console = Console(width=max(Console().width, LEAST_WIDTH))
        progress = Console(stderr=True)
        opened = [
            read_vectors(source, self.embodiment)
            for source in track(self.sources, "Reading", console=progress, transient=True)
        ]
        check_names(opened)
        pool = pooled_statistics(opened)
        console.print(f"{pool['state']['count'][0]:,} frames of {len(opened)} dataset{'s' * (len(opened) > 1)}")
        for kind, names in opened[0].names.items():
            console.print(statistics_table(kind, names, pool[kind]))
        if len(opened) > 1:
            for kind, names in opened[0].names.items():
                parts = [pooled([vars(vectors)[f"{kind}s"]]) for vectors in opened]
                console.print(averaging_note(kind, names, averaging_error(parts, pool[kind])), soft_wrap=True)
        if self.output is not None:
            write_json(self.output, self.document(opened, pool))
            console.print(f"Statistics: {self.output}", soft_wrap=True)

    def document(self, opened: Sequence["Vectors"], pool: dict[str, "Statistics"]) -> dict[str, Any]:
        """What is written: where the numbers are from, then per quantity a list over the dimensions."""
        said = {
            kind: {"names": list(names), **{name: value.tolist() for name, value in pool[kind].items()}}
            for kind, names in opened[0].names.items()
        }
        return {"sources": list(self.sources), "embodiment": self.embodiment, **said}


def read_vectors(source: str, embodiment: str | None) -> "Vectors":
    """States and actions of one dataset, with the names that its robot or the dataset gives their dimensions."""
    from molmoact2.data.card import card_for, feature_names
    from molmoact2.data.datasets import open_dataset
    from molmoact2.data.quantiles import Vectors
    from molmoact2.data.schema import ACTION, STATE

    dataset = open_dataset(source)
    if embodiment is None:
        names = {"state": feature_names(dataset, STATE), "action": feature_names(dataset, ACTION)}
        return Vectors(source=source, names=names, states=dataset.states, actions=dataset.actions)
    card = card_for(dataset, embodiment)
    names = {"state": card.robot.state_names, "action": card.robot.action_names}
    return Vectors(source=source, names=names, states=card.states(dataset), actions=card.actions(dataset))


def check_names(opened: Sequence["Vectors"]) -> None:
    """Refuse to pool what does not mean the same."""
    from molmoact2.data.errors import require

    first = opened[0]
    for vectors in opened:
        require(
            vectors.names == first.names,
            f"{vectors.source} has {vectors.names}, but {first.source} has {first.names}. Only the same dimensions can "
            "be pooled; --embodiment gives those of a known robot the same names.",
        )


def statistics_table(kind: str, names: Sequence[str], statistics: "Statistics") -> Table:
    """A row per dimension."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=kind, title_justify="left")
    table.add_column("dimension")
    for name in SHOWN:
        table.add_column(name, justify="right")
    for i, dimension in enumerate(names):
        table.add_row(dimension, *(f"{statistics[name][i]:.4g}" for name in SHOWN))
    return table


def averaging_note(kind: str, names: Sequence[str], error: "Statistics") -> str:
    """The worst that averages of quantiles would do."""
    quantile = max(error, key=lambda name: error[name].max())
    worst = int(error[quantile].argmax())
    return (
        f"{kind}: averages of the datasets' quantiles, weighted by frames, would be off by up to "
        f"{error[quantile][worst]:.1%} of q99 - q01 ({quantile} of {names[worst]})."
    )
