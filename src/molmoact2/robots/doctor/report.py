"""The diagnosis for humans: a report on the terminal, and a sheet of what every camera shows."""

from pathlib import Path

from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table
from rich.text import Text

from molmoact2.robots.doctor.finding import Diagnosis, Finding
from molmoact2.robots.doctor.sample import Sample

SIGNS = {"ok": ("✓", "green"), "unchecked": ("·", "dim"), "warning": ("!", "yellow"), "problem": ("✗", "bold red")}
"""Severity -> its sign and its style."""
TILE_HEIGHT, CAPTION_HEIGHT, GAP = 270, 30, 8


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Print every finding, section by section, and what comes of them."""
    console.print(Text.assemble(("robot       ", "cyan"), diagnosis.robot))
    console.print(Text.assemble(("checkpoint  ", "cyan"), diagnosis.checkpoint))
    for name, findings in diagnosis.sections.items():
        console.print()
        console.print(Text(name, style="bold"))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=15, style="cyan")
        table.add_column(ratio=1)
        for finding in findings:
            sign, style = SIGNS[finding.severity]
            table.add_row(Text(sign, style=style), finding.check, explained(finding))
        console.print(table)
    console.print()
    console.print(verdict(diagnosis))


def explained(finding: Finding) -> Text:
    """What was seen, why it matters and what to do, on lines of their own."""
    style = "dim" if finding.severity == "unchecked" else ""
    lines = [(finding.seen, style), (finding.why, "dim"), (f"→ {finding.fix}" if finding.fix else "", "bold")]
    return Text("\n").join(Text(line, style=look) for line, look in lines if line)


def verdict(diagnosis: Diagnosis) -> Text:
    """The last line."""
    counts = diagnosis.counts
    said = [
        f"{counts[severity]} {severity if counts[severity] == 1 else plural}"
        for severity, plural in (("problem", "problems"), ("warning", "warnings"), ("unchecked", "unchecked"))
        if counts[severity]
    ]
    advice = "nothing speaks against moving" if diagnosis.is_healthy else "mend the problems before anything moves"
    style = "green" if diagnosis.is_healthy else "bold red"
    return Text(f"{', '.join(said) or 'all is well'}: {advice}.", style=style)


def write_contact_sheet(sample: Sample, path: Path) -> None:
    """What each camera shows, side by side with its name, as a picture; ValueError for a format that is not known."""
    font = ImageFont.load_default(18)
    tiles = {name: Pictures.fromarray(view.picture) for name, view in sample.views.items()}
    widths = [tile.width * TILE_HEIGHT // tile.height for tile in tiles.values()]
    size = (sum(widths) + GAP * (len(widths) + 1), TILE_HEIGHT + CAPTION_HEIGHT + GAP)
    sheet = Pictures.new("RGB", size, "white")
    draw, left = ImageDraw.Draw(sheet), GAP
    for (name, tile), width in zip(tiles.items(), widths, strict=True):
        sheet.paste(tile.resize((width, TILE_HEIGHT)), (left, CAPTION_HEIGHT))
        draw.text((left, 4), f"{name}  {tile.width} x {tile.height}", fill="black", font=font)
        left += width + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
