"""Where a run writes what it measures: JSON lines for machines, TensorBoard for looking back, a bar for watching."""

import json
import os
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Log of one run in `folder`; after a resume it goes on behind the step that was resumed from."""

    def __init__(self, folder: Path, *, step: int, num_steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        kept = [line for line in _complete_lines(path) if json.loads(line)["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self.task = self.progress.add_task("train", total=num_steps, completed=step, text="")

    def __enter__(self) -> "RunLog":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        self.file.close()
        self.board.close()

    def advance(self, step: int, stage: str, values: dict[str, float]) -> None:
        """`step` steps are done; record the values, if there are any."""
        self.progress.advance(self.task)
        if not values:
            return
        self.file.write(json.dumps({"step": step, "stage": stage, **values}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        shown = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        self.progress.update(self.task, description=stage, text=shown)


def _complete_lines(path: Path) -> list[str]:
    """Lines that end; one that was being written when the run was killed does not."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
