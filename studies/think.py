"""Does thinking help? Plain and thinking policies on the simulated SO-101, as trained on and under variations.

    python studies/think.py run plain=runs/think/plain/checkpoint think=runs/think/think/checkpoint
    python studies/think.py run think-off=runs/think/think/checkpoint --no-think
    python studies/think.py ablate think=runs/think/think/checkpoint
    python studies/think.py table        # what was measured: results.json, and Markdown (also in table.md)
    python studies/think.py draw         # the same as a picture, docs/images/think-study.png

`run` measures every policy under five conditions: each cell is the command

    molmoact2 evaluate --policy CHECKPOINT [--think] [--variation NAME=1] --episodes 34 --workers 2
        --films 0 --no-report --output runs/think/study/NAME/CONDITION

102 episodes, 34 of each task, on the same scenes for every policy. A checkpoint that was trained to think thinks,
unless `--no-think` says otherwise. `ablate` measures a thinking policy that acts on depth codes other than its own:

    shuffled      its own codes of this very look, put into other cells at random
    frozen        its codes of the first look, for the whole episode
    wrong-scene   its codes of the start of another scene of the same task, for the whole episode
    random        any codes at all, others at every look

Every command goes on where it was stopped, and does nothing for cells that are complete; more `--episodes` extend
them. Several may run side by side as long as they measure different cells: `--conditions`, `--kinds` and `--workers`
divide the work. `table` and `draw` take what is there. Policies are compared with `--against` ("plain"), ablations
with the intact policy, scene by scene: McNemar's exact test, Newcombe's 95 % intervals of the difference. Another
folder than runs/think/study is given first: `python studies/think.py --output FOLDER run ...`.

How an ablation reaches what the action expert reads: a `Session` remembers the last image and its codes, as a
`DepthMemory`. Where the image did not change since, the codes are kept as they are, said to the network and read by
the expert. So the memory is set to the present image and other codes before each look; that the policy then reports
exactly these codes is checked every time.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.evaluation.benchmark import run_benchmark
from molmoact2.evaluation.checkpoint import CheckpointEpisode
from molmoact2.evaluation.ledger import EPISODES_FILE, Record, read_records, write_whole
from molmoact2.evaluation.pairs import pair
from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.evaluation.progress import follow
from molmoact2.evaluation.setup import make_benchmark, open_environment
from molmoact2.evaluation.summary import measure_tempo, summarise, summarise_tasks
from molmoact2.evaluation.workers import num_threads_per_worker
from molmoact2.inference.session import DepthMemory
from molmoact2.processing.observation import checked_images
from molmoact2.types import ActionChunk, Environment, Observation

OUTPUT = Path("runs/think/study")
PICTURE = Path("docs/images/think-study.png")
ENVIRONMENT = "so101"

VARIED = ("spatial", "lighting", "distractors", "camera")
HARD = {"nominal": NOMINAL} | {name: Variations(**{name: 1.0}) for name in VARIED}
"""At magnitude 1 the bundled policy loses clearly and is far from nothing (docs/variations.md)."""
CONDITIONS = HARD | {f"half-{name}": Variations(**{name: 0.5}) for name in VARIED}
"""The halves only where they are asked for: `--conditions half-camera`."""
EPISODES = 34
"""Per task: 102 in all."""
OTHER_SCENES = 500_000
"""What a seed is away from that of its "wrong scene"."""
ORDER = ("plain", "think", "think-off", "ahead", "no-gate", "no-noise", "one-style")
"""Of the policies in tables and pictures, as far as they are called so; others follow by name."""


# Policies under all conditions


def run(words: argparse.Namespace) -> None:
    """Measure every policy under every condition, one condition after the other: comparisons are there soon."""
    for condition in words.conditions:
        for name, checkpoint in words.policies:
            is_thinking = thinks(checkpoint, words)
            variation = [f"{which}={size:g}" for which, size in CONDITIONS[condition].active.items()]
            call(
                "evaluate", "--policy", checkpoint, "--env", ENVIRONMENT,
                *["--think"] * is_thinking, *["--think-ahead"] * (is_thinking and words.think_ahead),
                *(["--variation", *variation] if variation else []),
                "--episodes", words.episodes, "--workers", words.workers, "--films", 0, "--no-report",
                "--output", words.output / name / condition,
            )  # fmt: skip


def thinks(checkpoint: str, words: argparse.Namespace) -> bool:
    """Whether a policy is to think: where it can, unless told not to."""
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    return not words.no_think and bool(config.get("enable_depth_reasoning"))


def call(*words: object) -> None:
    """Run `molmoact2 WORDS`, and say so."""
    command = [sys.executable, "-m", "molmoact2.cli.main", *map(str, words)]
    print("molmoact2", shlex.join(command[3:]), flush=True)
    subprocess.run(command, check=True)


# Depth codes other than its own

Codes = NDArray[np.int64]


@dataclass(kw_only=True)
class Mislead:
    """A thinking policy in one episode, acting on codes that are given to it; implements `Policy`."""

    actor: CheckpointEpisode
    """Acts. Its noise is that of the episode without ablation."""
    scout: CheckpointEpisode
    """Thinks for itself, in a session of its own; what it would do is not done."""
    rng: np.random.Generator
    kind: str
    other_scene: Callable[[str], Observation]
    """Words of a task -> the start of another scene of that task."""
    kept: Codes | None = None
    """Codes that stay for the whole episode."""

    def act(self, observation: Observation, /) -> ActionChunk:
        """Act on the wrong codes."""
        codes = KINDS[self.kind](self, observation)
        cameras = self.actor.policy.processor.tag(self.actor.embodiment).camera_keys
        main_image = checked_images(observation.images, cameras)[0]
        self.actor.session.depth = DepthMemory(image=main_image.copy(), codes=codes)
        chunk = self.actor.act(observation)
        assert chunk.depth is not None
        assert (chunk.depth.codes == codes).all(), "the policy did not take the codes that it was given"
        return chunk

    def own(self, observation: Observation) -> Codes:
        """What it sees."""
        depth = self.scout.act(observation).depth
        assert depth is not None
        return depth.codes

    def shuffled(self, observation: Observation) -> Codes:
        """What it sees, elsewhere."""
        return self.rng.permutation(self.own(observation))

    def frozen(self, observation: Observation) -> Codes:
        """What it saw first."""
        self.kept = self.own(observation) if self.kept is None else self.kept
        return self.kept

    def wrong_scene(self, observation: Observation) -> Codes:
        """What it saw at the start of another scene."""
        self.kept = self.own(self.other_scene(observation.instruction)) if self.kept is None else self.kept
        return self.kept

    def random(self, _observation: Observation) -> Codes:
        """Anything."""
        family, config = self.actor.policy.processor.vocabulary.depth, self.actor.policy.config
        assert family is not None
        return self.rng.integers(0, family.count, config.num_depth_codes)


KINDS: dict[str, Callable[[Mislead, Observation], Codes]] = {
    "shuffled": Mislead.shuffled,
    "frozen": Mislead.frozen,
    "wrong-scene": Mislead.wrong_scene,
    "random": Mislead.random,
    "own": Mislead.own,
}
"""The last one changes nothing, for a test of the others."""
TASK_OF = {"pick": "pick", "put": "plate", "push": "push"}
"""First word of an instruction -> task."""


def open_misled(kind: str, choice: PolicyChoice, variations: Variations, environment: Environment) -> PolicySource:
    """A thinking checkpoint that acts on codes of a kind; what else `PolicyChoice.open` would give."""
    source, open_elsewhere = choice.open(environment), cache(partial(open_environment, choice.environment, variations))

    def look_elsewhere(seed: int, instruction: str) -> Observation:
        elsewhere = open_elsewhere()
        elsewhere.reset(seed=seed + OTHER_SCENES, task=TASK_OF[instruction.split()[0]])
        return elsewhere.observe()

    def start(seed: int) -> Mislead:
        actor = source.start(seed)
        assert isinstance(actor, CheckpointEpisode)
        return Mislead(
            actor=actor,
            scout=replace(actor, session=actor.policy.new_session(seed)),
            rng=np.random.default_rng(seed),
            kind=kind,
            other_scene=partial(look_elsewhere, seed),
        )

    return PolicySource(start=start, num_action_steps=source.num_action_steps)


def ablate(words: argparse.Namespace) -> None:
    """Measure every given thinking policy with every kind of wrong codes."""
    for name, checkpoint in words.policies:
        for condition in words.conditions:
            for kind in words.kinds:
                output = words.output / name / f"{condition}+{kind}"
                print(f"{name}: {condition}, {kind} codes -> {output}", flush=True)
                measure_misled(kind, checkpoint, CONDITIONS[condition], output, words)


def measure_misled(
    kind: str, checkpoint: str, variations: Variations, output: Path, words: argparse.Namespace
) -> Sequence[Record]:
    """The episodes of one cell; those that `output` lacks are run."""
    num_threads = num_threads_per_worker(words.workers) if words.workers > 1 else None
    choice = PolicyChoice(name=checkpoint, environment=ENVIRONMENT, think=True, num_threads=num_threads)
    benchmark, protocol = make_benchmark(
        choice, tasks=(), num_episodes=words.episodes, num_films=0, variations=variations
    )
    benchmark = replace(benchmark, open_policy=partial(open_misled, kind, choice, variations))
    return follow(
        run_benchmark(benchmark, output, protocol | {"codes": kind}, num_workers=words.workers),
        title=f"{choice.label} {kind}",
        total=words.episodes * len(benchmark.tasks),
        count=len,
        describe=lambda records: summarise(records).sentence,
    )


# What was measured


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A policy under a condition."""

    policy: str
    condition: str
    kind: str
    """Of the codes it acted on: "own", or that of an ablation."""
    records: Sequence[Record]


def measured(output: Path) -> list[Cell]:
    """All cells that have episodes: policies in their order, conditions in theirs, intact ones first."""
    cells = []
    for path in sorted(output.glob(f"*/*/{EPISODES_FILE}")):
        condition, _, kind = path.parent.name.partition("+")
        records = read_records(path)
        if records and condition in CONDITIONS:
            cells.append(Cell(policy=path.parts[-3], condition=condition, kind=kind or "own", records=records))
    kinds, places = ["own", *KINDS], {name: place for place, name in enumerate(ORDER)}
    return sorted(
        cells,
        key=lambda cell: (
            places.get(cell.policy, len(ORDER)),
            cell.policy,
            list(CONDITIONS).index(cell.condition),
            kinds.index(cell.kind),
        ),
    )


def describe(cell: Cell, reference: Cell | None) -> dict[str, Any]:
    """A cell in numbers; beside its reference, where there is one."""
    summary, tempo = summarise(cell.records), measure_tempo(cell.records)
    row: dict[str, Any] = {
        "policy": cell.policy,
        "condition": cell.condition,
        "codes": cell.kind,
        "episodes": summary.num_episodes,
        "successes": summary.num_successes,
        "rate": summary.rate,
        "interval": summary.interval,
        "tasks": {
            task: [one.num_successes, one.num_episodes] for task, one in sorted(summarise_tasks(cell.records).items())
        },
        "failures": dict(summary.failures),
        "plan_ms": 1000 * tempo.plan_seconds,
    }
    thoughts = [record["depth"] for record in cell.records if "depth" in record]
    for name in ("renewed", "passes", "age") if thoughts else ():
        row[name] = float(np.mean(np.concatenate([one[name] for one in thoughts])))
    if reference is not None:
        pairs = pair(reference.records, cell.records)
        row |= {
            "against": f"{reference.policy}, {reference.kind} codes",
            "pairs": vars(pairs),
            "difference": pairs.difference,
            "difference_interval": pairs.interval,
            "p": pairs.p_value,
        }
    return row


def results(output: Path, against: str) -> list[dict[str, Any]]:
    """All cells in numbers; policies beside `against`, ablations beside the intact policy."""
    cells = measured(output)
    found = {(cell.policy, cell.condition, cell.kind): cell for cell in cells}
    rows = []
    for cell in cells:
        baseline = cell.policy if cell.kind != "own" else against
        reference = found.get((baseline, cell.condition, "own"))
        rows.append(describe(cell, None if reference is cell else reference))
    return rows


def percent(rate: float, interval: Sequence[float]) -> str:
    """For instance "84 (76 - 90)"."""
    return f"{100 * rate:.0f} ({100 * interval[0]:.0f} - {100 * interval[1]:.0f})"


def tables(rows: Sequence[dict[str, Any]], against: str) -> str:
    """Everything as Markdown."""
    sections = [
        ("Success in percent, with 95 % intervals", success_table(rows)),
        (f"Difference to {against} on the same scenes, in points", difference_table(rows)),
        ("What thinking takes, in nominal scenes", cost_table(rows)),
        (
            "Codes that are not its own: success, and difference to the intact policy on the same scenes",
            ablations(rows),
        ),
    ]
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in sections if table.count("\n") > 1) + "\n"


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The conditions of a table: the five of the study, and others that were measured."""
    return [name for name in CONDITIONS if name in HARD or any(row["condition"] == name for row in rows)]


def success_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per policy, a column per condition."""
    intact = [row for row in rows if row["codes"] == "own"]
    lines = []
    for policy in dict.fromkeys(row["policy"] for row in intact):
        cells = {row["condition"]: row for row in intact if row["policy"] == policy}
        lines.append(
            [policy]
            + [percent(cells[c]["rate"], cells[c]["interval"]) if c in cells else "" for c in columns(rows)]
            + [", ".join(sorted({str(cell["episodes"]) for cell in cells.values()}))]
        )
    return grid(["policy", *columns(rows), "episodes"], lines)


def difference_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per policy that has a reference, a column per condition: difference, interval, p."""
    compared = [row for row in rows if row["codes"] == "own" and "against" in row]
    lines = []
    for policy in dict.fromkeys(row["policy"] for row in compared):
        cells = {row["condition"]: difference(row) for row in compared if row["policy"] == policy}
        lines.append([policy, *(cells.get(condition, "") for condition in columns(rows))])
    return grid(["policy", *columns(rows)], lines)


def difference(row: dict[str, Any]) -> str:
    """For instance "+4 (-3 to +11), p = 0.34"; empty without a reference."""
    if "against" not in row:
        return ""
    low, high = (100 * bound for bound in row["difference_interval"])
    return f"{100 * row['difference']:+.0f} ({low:+.0f} to {high:+.0f}), p = {row['p']:.2g}"


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per intact policy, as trained on: median time of a plan, cells renewed, passes."""
    lines = [
        [row["policy"], f"{row['plan_ms']:.0f}"]
        + [f"{row[name]:.1f}" if name in row else "" for name in ("renewed", "passes")]
        for row in rows
        if row["codes"] == "own" and row["condition"] == "nominal"
    ]
    return grid(["policy", "median ms per plan", "depth cells renewed per plan", "passes of the decoder"], lines)


def ablations(rows: Sequence[dict[str, Any]]) -> str:
    """A line per policy, condition and kind of codes."""
    ablated = {(row["policy"], row["condition"]) for row in rows if row["codes"] != "own"}
    lines = [
        [row["policy"], row["condition"], row["codes"], percent(row["rate"], row["interval"]), compared]
        for row in rows
        for compared in [difference(row) * (row["codes"] != "own")]
        if (row["policy"], row["condition"]) in ablated
    ]
    return grid(["policy", "condition", "codes", "success", "difference"], lines)


def table(words: argparse.Namespace) -> None:
    """Write results.json and table.md, and print the latter."""
    rows = results(words.output, words.against)
    write_whole(words.output / "results.json", json.dumps(rows, indent=1) + "\n")
    write_whole(words.output / "table.md", tables(rows, words.against))
    print(tables(rows, words.against))


def draw(words: argparse.Namespace) -> None:
    """Grouped bars with intervals: policies by condition, and below them ablations by policy."""
    import matplotlib.pyplot as plt

    rows = results(words.output, words.against)
    intact = [row for row in rows if row["codes"] == "own"]
    ablated = {(row["policy"], row["condition"]) for row in rows if row["codes"] != "own"}
    misled = [row for row in rows if (row["policy"], row["condition"]) in ablated]
    panels = [("condition", "policy", intact, list(CONDITIONS))]
    groups = [", ".join(place) for place in dict.fromkeys((row["policy"], row["condition"]) for row in misled)]
    misled = [row | {"place": f"{row['policy']}, {row['condition']}"} for row in misled]
    panels += [("place", "codes", misled, groups)] * bool(misled)
    figure, axes = plt.subplots(len(panels), 1, figsize=(9, 3.4 * len(panels)), layout="constrained", squeeze=False)
    for axis, (group, series, shown, order) in zip(axes[:, 0], panels, strict=True):
        draw_bars(axis, shown, group, series, order)
    axes[0, 0].set_title("Success by condition", loc="left")
    if misled:
        axes[1, 0].set_title("Acting on depth codes other than its own", loc="left")
    words.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(words.picture, dpi=130)
    print(words.picture)


def draw_bars(axis: Any, rows: Sequence[dict[str, Any]], group: str, series: str, order: Sequence[str]) -> None:
    """Bars of `rows`, side by side within a group, one colour for each of a series."""
    names = list(dict.fromkeys(row[series] for row in rows))
    present = [place for place in order if any(row[group] == place for row in rows)]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        mine = [row for row in rows if row[series] == name]
        places = [present.index(row[group]) + (number - (len(names) - 1) / 2) * width for row in mine]
        rates = np.array([100 * row["rate"] for row in mine])
        low, high = 100 * np.array([row["interval"] for row in mine]).T
        axis.bar(places, rates, 0.9 * width, color=f"C{number}", label=name, alpha=0.85)
        axis.errorbar(places, rates, yerr=[rates - low, high - rates], fmt="none", ecolor="0.2", capsize=2, lw=1)
    axis.set(ylabel="success, %", ylim=(0, 100), xlim=(-0.5, len(present) - 0.5))
    axis.set_xticks(range(len(present)), present)
    axis.grid(axis="y", alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def named(word: str) -> tuple[str, str]:
    """(name, checkpoint) of "name=checkpoint"."""
    name, _, checkpoint = word.partition("=")
    if not name or "/" in name or not (Path(checkpoint) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"give NAME=CHECKPOINT, where CHECKPOINT has a config.json; got {word!r}")
    return name, checkpoint


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of all cells")
    commands = parser.add_subparsers(required=True)
    measuring = argparse.ArgumentParser(add_help=False)
    measuring.add_argument("policies", nargs="+", type=named, metavar="NAME=CHECKPOINT")
    measuring.add_argument("--episodes", type=int, default=EPISODES, help="per task")
    measuring.add_argument("--workers", type=int, default=2)
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--against", default="plain", help="policy that the others are compared with")

    command = commands.add_parser("run", parents=[measuring], help="policies under all conditions")
    command.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(HARD))
    command.add_argument("--no-think", action="store_true", help="thinking policies act without thinking")
    command.add_argument("--think-ahead", action="store_true", help="they act on the map of the look before")
    command.set_defaults(do=run)
    command = commands.add_parser("ablate", parents=[measuring], help="thinking policies with wrong codes")
    command.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=["nominal"])
    command.add_argument("--kinds", nargs="+", choices=KINDS, default=[kind for kind in KINDS if kind != "own"])
    command.set_defaults(do=ablate)
    command = commands.add_parser("table", parents=[shown], help="what was measured")
    command.set_defaults(do=table)
    command = commands.add_parser("draw", parents=[shown], help="the same as a picture")
    command.add_argument("--picture", type=Path, default=PICTURE)
    command.set_defaults(do=draw)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    words = parse()
    words.do(words)
