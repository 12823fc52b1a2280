"""A plan as people read it: parameters, memory, work, and what to change where it does not fit."""

from rich import box
from rich.console import Console
from rich.table import Table

from molmoact2.training.plan import GIB, Plan, alternatives

STEPS = 1000
"""The time of so many steps is told."""


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan; for one that does not fit, also the plans that are one change away."""
    console = console or Console()
    for table in (size_table(plan), memory_table(plan), work_table(plan)):
        console.print(table)
    console.print(verdict(plan))
    if not plan.fits:
        console.print(advice_table(plan))


def size_table(plan: Plan) -> Table:
    """Parameters of each part, and what it does."""
    total, trained = (sum(vars(size)[name] for size in plan.sizes.values()) for name in ("total", "trained"))
    sums = ("in all", "", f"{total:,}", f"{trained:,}")
    table = make_table("parameters", "part", "", "parameters", "that learn", footers=sums)
    for part, size in plan.sizes.items():
        table.add_row(part, vars(plan.trainable)[part], f"{size.total:,}", f"{size.trained:,}")
    return table


def memory_table(plan: Plan) -> Table:
    """Memory of each component, on each GPU."""
    hardware = plan.hardware
    table = make_table(
        f"memory per GPU, of {hardware.gpus} x {hardware.gpu}", "component", "GiB",
        footers=("needed", gib(plan.bytes_per_gpu)),
    )  # fmt: skip
    for component, size in plan.memory.items():
        table.add_row(component, gib(size))
    return table


def work_table(plan: Plan) -> Table:
    """What a step is, and how long it may take."""
    work, hardware = plan.workload, plan.hardware
    seconds = plan.seconds_per_step
    table = make_table("work", "", "")
    rows = {
        "examples per step": f"{work.examples_per_step:,}",
        "rows per step": f"{plan.rows_per_step:,}",
        "passes per GPU and step": f"{plan.passes_per_step:,} of {work.rows_per_pass} rows",
        "tokens per step": f"{plan.tokens_per_step:,}",
        "work per step": f"{plan.flops_per_step / 1e12:,.0f} TFLOP",
        "time per step": f"about {seconds:.2g} s, if {hardware.utilisation:.0%} of the peak is reached",
        f"time per {STEPS:,} steps": f"about {STEPS * seconds / 3600:.2g} h",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def verdict(plan: Plan) -> str:
    """Whether it fits."""
    there = plan.hardware.bytes_per_gpu
    answer = {True: "[green]It fits[/green]", False: "[red]It does not fit[/red]"}[plan.fits]
    return f"{answer}: {gib(plan.bytes_per_gpu)} GiB are needed on each GPU, {gib(there)} GiB are there."


def advice_table(plan: Plan) -> Table:
    """What one change would do."""
    table = make_table("what to change", "change", "GiB per GPU", "fits", "seconds per step")
    for change, other in alternatives(plan).items():
        answer = {True: "yes", False: "no"}[other.fits]
        table.add_row(change, gib(other.bytes_per_gpu), answer, f"{other.seconds_per_step:.2g}")
    return table


def make_table(title: str, *columns: str, footers: tuple[str, ...] = ()) -> Table:
    """A table whose first column is words and whose last ones are numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", show_footer=bool(footers))
    for index, column in enumerate(columns):
        footer = "".join(footers[index : index + 1])
        table.add_column(column, justify=("right", "left")[index == 0 or not column], footer=footer)
    return table


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / GIB:,.2f}"
