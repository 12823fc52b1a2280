"""`molmoact2 data filter SOURCE... --output PLACE`: keep what is worth learning from, and say what was dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

if TYPE_CHECKING:
    from molmoact2.data.curation.gates import Curation
    from molmoact2.data.curation.selection import Selection


@dataclass(frozen=True)
class Filter:
    """Keep what is worth learning from: the rules that MolmoAct2's SO-100/101 and DROID data were chosen by.

    Whole datasets are dropped by name (evaluations), licence, schema or reward; episodes without video, with NaN,
    without success (where a column says so) or without an instruction; and, with --idle, the time in which the robot
    stands still. An output that ends in .json becomes a list of what is kept; any other becomes a dataset whose
    episodes are the kept spans, or, for several sources, a folder of such datasets. Interrupted, the same command goes
    on.
    """

    sources: Positional[tuple[str, ...]]
    """Folders or hub ids of datasets."""
    output: Path
    """FILE.json for a list, or the folder of the new dataset."""
    embodiment: str | None = None
    """Tag of the robot, for units and schema; by default each dataset's own robot type, where it is a tag."""
    idle: bool = False
    """Cut out pauses: keep contiguous spans in which something moves."""
    slowest: dict[str, float] = field(default_factory=dict)
    """Unit or name of a dimension, and the speed per second below which it stands still. Defaults: deg 2, rad 0.035,
    m 0.005, percent 4, fraction 0.04; where the unit is unknown, 0.02 of the usual range."""
    shortest_pause: float = 0.5
    """Seconds; a shorter pause is part of the motion."""
    shortest_span: float = 1.0
    """Seconds; shorter spans and episodes are dropped."""
    dropped_names: str | None = None
    """Regular expression for the names of datasets to drop; by default those of evaluations, such as eval_cubes."""
    licences: tuple[str, ...] = ()
    """Licences that a dataset may have, such as apache-2.0; any by default."""
    rewards: Path | None = None
    """JSON file of scores by a reward model: {"dataset name": {"0": 0.9}}."""
    least_reward: float = 0.5
    """Mean score that the last three sampled episodes of a dataset must reach."""

    def run(self) -> None:
        """Choose, write, and say what was dropped by which rule."""
        from rich.progress import track

        from molmoact2.data.curation.curate import curate
        from molmoact2.data.curation.writing import write_list

        places = self.places()
        curation = self.curation()
        followed = track(self.sources, "Choosing", console=Console(stderr=True), transient=True)
        selections = [curate(source, curation, embodiment=self.embodiment) for source in followed]
        if not any(selection.lengths for selection in selections):
            raise ValueError(selections[0].dropped[0].reason)
        console = Console()
        for selection in selections:
            console.print(selection_table(selection))
        if self.output.suffix == ".json":
            write_list(self.output, selections)
            console.print(f"List: {self.output}")
            return
        self.write_datasets(console, dict(zip(places, selections, strict=True)))

    def write_datasets(self, console: Console, selections: "dict[Path, Selection]") -> None:
        """Write the datasets of which something is left; ValueError when that is none of them."""
        from molmoact2.data.curation.writing import write_dataset
        from molmoact2.data.datasets import open_dataset

        left = {place: selection for place, selection in selections.items() if selection.spans}
        if not left:
            raise ValueError(
                "Nothing is left of any source, so no dataset was written. The table says which rule did it."
            )
        for place, selection in left.items():
            write_dataset(open_dataset(selection.source), selection, place)
            console.print(f"Dataset: {place}")

    def places(self) -> list[Path]:
        """Where the dataset of each source goes. Raises ValueError where two would go to one place."""
        names = [Path(source).name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"Give at least one source, and no two of the same name, got {names}.")
        return [self.output] if len(names) == 1 else [self.output / name for name in names]

    def curation(self) -> "Curation":
        """What is asked, from the flags."""
        from molmoact2.data.curation.gates import EVALUATION_NAMES, Curation
        from molmoact2.data.curation.idle import SLOWEST_PER_S, IdleRule
        from molmoact2.data.curation.rewards import RecordedRewards

        return Curation(
            dropped_names=EVALUATION_NAMES if self.dropped_names is None else self.dropped_names,
            licences=tuple(licence.lower() for licence in self.licences),
            rewards=RecordedRewards.read(self.rewards) if self.rewards else None,
            least_reward=self.least_reward,
            idle=IdleRule(
                slowest_per_s=SLOWEST_PER_S | self.slowest,
                shortest_pause_s=self.shortest_pause,
                shortest_span_s=self.shortest_span,
            ),
            drops_idle=self.idle,
        )


def selection_table(selection: "Selection") -> Table:
    """What was kept and what each rule dropped."""
    table = Table(box=box.SIMPLE_HEAD, title=selection.source, title_justify="left", title_style="bold")
    table.add_column("rule")
    for column in ("episodes", "spans", "frames", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    total = sum(selection.lengths)
    rows = [(part.rule, part.spans, part.num_frames, part.reason) for part in selection.dropped]
    for rule, spans, frames, reason in rows:
        table.add_row(rule, *counts(spans, frames, total), reason)
    table.add_section()
    table.add_row("kept", *counts(selection.spans, selection.num_frames, total), "", style="bold")
    return table


def counts(spans: Sequence[tuple[int, int, int]], frames: int, total: int) -> list[str]:
    """Episodes touched, spans, frames and their share of all, as text."""
    return [f"{len({span[0] for span in spans}):,}", f"{len(spans):,}", f"{frames:,}", f"{frames / max(total, 1):.1%}"]
