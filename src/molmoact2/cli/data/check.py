"""`molmoact2 data check SOURCE`: what is wrong with a dataset, why it matters, what to do, and a grade."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from molmoact2.data.quality.findings import Finding, Report, Severity

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold blue"}
GRADE_STYLES = {"A": "bold green", "B": "bold green", "C": "bold yellow", "D": "bold red", "F": "bold red"}
SHOWN_PLACES = 3


@dataclass(frozen=True)
class Check:
    """Look for everything that is wrong with a dataset, and grade it.

    The grade counts rules that found something: A no error and no warning, B one or two warnings, C more warnings, D
    one error, F more errors, or a dataset that cannot be opened. A warning about at most 1 % of the episodes is a note.
    Exits with 1 when there are errors.
    """

    source: Positional[str]
    """Folder of the dataset, or its id on the Hugging Face hub."""
    embodiment: str | None = None
    """Tag of the robot, for its units, limits, names and rate; by default its own robot type, where that is a tag."""
    json: Path | None = None
    """File to write the report to as JSON, with every place."""
    html: Path | None = None
    """File to write the report to as a page with plots and images, which needs no network."""
    images: bool = True
    """Look at a sample of the images, and count the frames of the videos."""

    def run(self) -> None:
        """Check, print, write; exit with 1 when there are errors."""
        from molmoact2.data.files import write_json
        from molmoact2.data.quality.checking import check_dataset
        from molmoact2.evaluation.quality_report import write_quality_page

        report = check_dataset(self.source, embodiment=self.embodiment, images=self.images)
        console = Console()
        console.print(Group(*map(told, report.findings), closing(report)))
        if self.json:
            write_json(self.json, report.to_dict())
        if self.html:
            write_quality_page(report, self.html)
        if report.count(Severity.ERROR):
            raise SystemExit(1)


def told(finding: Finding) -> Group:
    """One finding: what and where, why it matters, what to do."""
    head = Text.assemble((f"{finding.severity:<8}", STYLES[finding.severity]), (finding.title, "bold"))
    head.append(f"  {finding.rule}", "dim")
    shown = "; ".join(map(str, finding.places[:SHOWN_PLACES]))
    more = f" and {len(finding.places) - SHOWN_PLACES} more" if len(finding.places) > SHOWN_PLACES else ""
    where = {"where": shown + more} if shown else {}
    rows = {"found": finding.measured, **where, "why": finding.why, "do": finding.fix}
    table = Table.grid(padding=(0, 1))
    for name, words in rows.items():
        table.add_row("      ", Text(name, style="dim"), Text(words))
    return Group(head, table, Text())


def closing(report: Report) -> Group:
    """The grade, and what was and was not looked at."""
    grade = Text.assemble(("Grade ", "bold"), (report.grade, GRADE_STYLES[report.grade]), f"   {report.counts}")
    grade.append(f", {len(report.passed)} rules found nothing")
    reasons = dict.fromkeys(report.not_run.values())
    skipped = [
        Text(f"Not checked, because {reason}: " + ", ".join(r for r, why in report.not_run.items() if why == reason))
        for reason in reasons
    ]
    return Group(*skipped, grade)
