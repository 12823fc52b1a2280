"""The paper's stages in small, on two CPU cores: what each of them, and each choice in them, is worth (docs/stages.md).

    python studies/stages.py run         # every training and every measurement that is not done yet, in order
    python studies/stages.py run k1 k8   # those of some runs; two such commands may work side by side
    python studies/stages.py table       # what was measured, as Markdown
    python studies/stages.py draw        # the same as a picture, docs/images/stages.png

A run is a recipe: what differs from a named one, and the run that it starts from. Recordings and scenes are those of
`molmoact2 train nano-so101`; the real data are BridgeData (made with `molmoact2 data convert`) and Unitree G1.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from molmoact2.evaluation.statistics import wilson_interval

OUTPUT, SIMULATION = Path("runs/stages"), Path("runs/nano-so101")
BRIDGE, G1 = "runs/stages/bridge", "../shared/data/g1_bottle"
TASKS = ("pick", "plate", "push")
PICTURE = Path("docs/images/stages.png")
EPISODES = 100
"""Per task."""

REAL = f"""
[[group]]
embodiment = "widowx_bridge"
rate = 0.5
datasets = ["{BRIDGE}"]
cameras = ["image_0", "image_1"]

[[group]]
embodiment = "new:unitree_g1"
rate = 0.5
datasets = ["{G1}"]
"""
"""The mixture of real robots."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training, and how it is measured."""

    recipe: str
    """TOML; see `molmoact2.training.recipe_file`."""
    start: str | None = None
    """Run whose checkpoint it starts from."""
    modes: tuple[str, ...] = ("continuous",)
    """Speaking takes long, so the short runs speak only where that is the point."""

    @property
    def uses_real(self) -> bool:
        """Whether it learns from real robots too."""
        return "real" in self.recipe


BOTH = ("continuous", "discrete")
SHORT = 'like = "nano-fine-tune"\n[stage]\nnum_steps = 600\n'
"""The runs that compare one choice: all from the same start, of the same length."""
K4 = SHORT + "flow_samples = 4\n"
REAL_SHARE = "examples_per_step = {robot = 26, real = 6, scenes = 4, questions = 4}\n"

RUNS = {
    "er": Run(recipe='like = "nano-er"\n', modes=()),
    "pretrain": Run(
        recipe='like = "nano-pretrain"\n[stage]\nnum_steps = 2_000\n' + REAL_SHARE, start="er", modes=("discrete",)
    ),
    "base": Run(recipe=K4, start="pretrain", modes=BOTH),
    "insulated": Run(recipe=K4 + "insulate = true\n", start="pretrain", modes=BOTH),
    "post-train": Run(
        recipe='like = "nano-post-train"\n[stage]\nnum_steps = 1_500\n' + REAL_SHARE, start="pretrain", modes=BOTH
    ),
    "last-hidden": Run(recipe=K4 + '[expert]\nconditioning = "last_hidden"\n', start="pretrain"),
    "k1": Run(recipe=SHORT + "flow_samples = 1\n", start="pretrain"),
    "not-said": Run(recipe=K4 + "says_actions = false\n", start="pretrain"),
    "head-kv": Run(recipe=K4 + '[expert]\nconditioning = "head_kv"\n', start="pretrain"),
    "fine-tune": Run(recipe='like = "nano-fine-tune"\n[stage]\nnum_steps = 1_500\n', start="post-train", modes=BOTH),
    "k8": Run(recipe=SHORT + "flow_samples = 8\n", start="pretrain"),
    "k2": Run(recipe=SHORT + "flow_samples = 2\n", start="pretrain"),
}
"""In the order in which they are run."""


def run(name: str) -> None:
    """Train and measure what of a run is not done yet."""
    folder, this = OUTPUT / name, RUNS[name]
    if not (folder / "checkpoint" / "config.json").exists():
        recipe = OUTPUT / f"{name}.toml"
        recipe.write_text(this.recipe)
        start = ["--start", OUTPUT / this.start / "checkpoint"] if this.start else []
        mixture = ["--mixture", OUTPUT / "real.toml"] if this.uses_real else []
        call("train", recipe, "--output", folder, "--simulation", SIMULATION, "--compile", *start, *mixture)
    for mode in this.modes:
        call(
            "evaluate", "--policy", folder / "checkpoint", "--mode", mode, "--output", folder / mode,
            "--episodes", EPISODES, "--workers", 2, "--films", 0, "--no-report",
            *["--guided"] * (mode == "discrete"),
        )  # fmt: skip


def call(*words: object) -> None:
    """Run `molmoact2 WORDS`."""
    subprocess.run([sys.executable, "-m", "molmoact2.cli.main", *map(str, words)], check=True)


def successes(episodes: Path) -> Mapping[str, tuple[int, int]]:
    """Task -> (successes, episodes) of a measurement."""
    records = [json.loads(line) for line in episodes.read_text().splitlines()]
    of_task = {task: [bool(record["success"]) for record in records if record["task"] == task] for task in TASKS}
    return {task: (sum(won), len(won)) for task, won in of_task.items()}


def measured() -> Iterator[tuple[str, str, Mapping[str, tuple[int, int]]]]:
    """(run, mode, successes) of all measurements that are there."""
    for name, this in RUNS.items():
        for mode in (mode for mode in this.modes if (OUTPUT / name / mode / "episodes.jsonl").exists()):
            yield name, mode, successes(OUTPUT / name / mode / "episodes.jsonl")


def overall(of_tasks: Mapping[str, tuple[int, int]]) -> tuple[float, float, float]:
    """Success over all tasks, and its 95 % Wilson interval, in percent."""
    won, tried = (sum(column) for column in zip(*of_tasks.values(), strict=True))
    low, high = wilson_interval(won, tried)
    return 100 * won / tried, 100 * low, 100 * high


def table() -> str:
    """All measurements as Markdown."""
    lines = ["| run | from | mode | " + " | ".join(TASKS) + " | all |", "|---|---|---|" + "---|" * (len(TASKS) + 1)]
    for name, mode, of_tasks in measured():
        rate, low, high = overall(of_tasks)
        cells = " | ".join(f"{won} / {tried}" for won, tried in of_tasks.values())
        lines.append(f"| {name} | {RUNS[name].start} | {mode} | {cells} | {rate:.0f} % ({low:.0f} - {high:.0f}) |")
    return "\n".join(lines)


def draw() -> None:
    """All measurements as a picture."""
    import matplotlib.pyplot as plt

    rows = [(name, mode, overall(of_tasks)) for name, mode, of_tasks in measured()]
    figure, axis = plt.subplots(figsize=(8, 0.34 * len(rows) + 1), layout="constrained")
    for place, (name, mode, (rate, low, high)) in enumerate(reversed(rows)):
        colour = {"continuous": "C0", "discrete": "C1"}[mode]
        axis.errorbar(rate, place, xerr=[[rate - low], [high - rate]], fmt="o", color=colour, capsize=3)
        axis.annotate(
            f"{name}, {mode}", (0, place), xytext=(-6, 0), textcoords="offset points", ha="right", va="center"
        )
    axis.set(xlabel="success over three tasks, % of 300 unseen episodes (95 % intervals)", yticks=[], xlim=(0, 100))
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=130)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", *names]:
            OUTPUT.mkdir(parents=True, exist_ok=True)
            (OUTPUT / "real.toml").write_text(REAL)
            for name in names or RUNS:
                run(name)
        case ["table"]:
            print(table())
        case ["draw"]:
            draw()
        case _:
            sys.exit(__doc__)
