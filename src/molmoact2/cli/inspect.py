"""`molmoact2 inspect CHECKPOINT`: what a checkpoint is, from its small files and the headers of its weight files."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from molmoact2.model.config import ModelConfig, read_config
from molmoact2.model.weights import RECOMPUTED, UNUSED, StoredTensor, list_tensors
from molmoact2.processing.norm_stats import NormStats, TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.tokens.reading import parse_json

PARTS = {
    "ignored": rf"{UNUSED.pattern}|{re.escape(RECOMPUTED)}",
    "embeddings": r"model\.transformer\.wte\..+|lm_head\..+",
    "text": r"model\.transformer\..+",
    "vision": r"model\.vision_backbone\.image_vit\..+",
    "connector": r"model\.vision_backbone\..+",
    "depth gate": r"model\.action_expert_depth_gate\..+",
    "action expert": r"model\.action_expert\..+",
    "other": r".+",
}
"""Part of the network -> the stored names that belong to it; the first that fits counts."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Precision -> bytes of one parameter."""


@dataclass(frozen=True, kw_only=True)
class Robot:
    """One embodiment that a checkpoint was trained for."""

    tag: str
    setup: str
    control_mode: str
    cameras: tuple[str, ...]
    """In the order the network sees them; empty where any cameras may be given."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_horizon: int
    """Steps that are planned."""
    n_action_steps: int
    """Steps that are executed before the policy looks again."""
    normalization: str
    """How states and actions are scaled."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint is."""

    path: str
    kind: str
    actions: tuple[str, ...]
    """How it can act: "continuous", "discrete"; empty where it cannot."""
    robots: tuple[Robot, ...]
    parameters: dict[str, int]
    """Part of the network -> its number of parameters."""
    ignored_parameters: int
    """Stored numbers that no network uses; they are not loaded."""
    stored_as: tuple[str, ...]
    """Precisions on disk."""
    memory_bytes: dict[str, int]
    """Precision -> bytes that the loaded weights take."""


@dataclass(frozen=True)
class Inspect:
    """Say what a checkpoint is, without loading its weights."""

    checkpoint: Positional[Path]
    """Folder of the checkpoint."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        """Print the description."""
        description = describe(self.checkpoint)
        console = Console()
        if self.json:
            console.print_json(data=asdict(description))
            return
        for table in (head_table(description), *map(robot_table, description.robots), size_table(description)):
            console.print(table)


def describe(directory: Path) -> Description:
    """Read a checkpoint's description; ValueError where it is not a checkpoint."""
    config_file = directory / "config.json"
    if not config_file.is_file():
        raise ValueError(
            f"{directory} is not a checkpoint: there is no {config_file}. Give the folder that holds one; "
            "from the Hugging Face hub it has to be downloaded first."
        )
    config = read_config(parse_json(config_file.read_bytes(), "config.json"))
    tensors = list_tensors(directory)
    parameters = count_parameters(tensors)
    ignored = parameters.pop("ignored", 0)
    stats_file = directory / config.norm_stats_filename
    tags = NormStats.read(parse_json(stats_file.read_bytes(), stats_file.name)).tags if stats_file.is_file() else {}
    return Description(
        path=str(directory),
        kind=kind_of(config),
        actions=actions_of(config),
        robots=tuple(describe_robot(stats) for stats in tags.values()),
        parameters=parameters,
        ignored_parameters=ignored,
        stored_as=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})),
        memory_bytes={precision: size * sum(parameters.values()) for precision, size in BYTES.items()},
    )


def kind_of(config: ModelConfig) -> str:
    """What a checkpoint is for, in words."""
    if config.enable_depth_reasoning:
        return "Think robot policy: draws itself a depth map, then acts"
    if config.add_action_expert:
        return "robot policy"
    if config.num_action_tokens:
        return "pretrained model: knows robots, has no action expert"
    return "vision-language model: answers questions, cannot act"


def actions_of(config: ModelConfig) -> tuple[str, ...]:
    """The modes in which a checkpoint can act."""
    can = {
        "continuous": config.add_action_expert and config.action_mode != "discrete",
        "discrete": config.num_action_tokens > 0 and config.action_mode != "continuous",
    }
    return tuple(mode for mode, possible in can.items() if possible)


def describe_robot(stats: TagStats) -> Robot:
    """One embodiment, in the words of its norm statistics; nameless dimensions are numbered."""
    return Robot(
        tag=stats.tag,
        setup=stats.setup,
        control_mode=stats.control_mode,
        cameras=tuple(key.removeprefix(PREFIX) for key in stats.camera_keys),
        state_names=stats.state.names or tuple(f"state {i}" for i in range(stats.state.width)),
        action_names=stats.action.names or tuple(f"action {i}" for i in range(stats.action.width)),
        action_horizon=stats.action_horizon,
        n_action_steps=stats.n_action_steps,
        normalization=stats.mode,
    )


def count_parameters(tensors: dict[str, StoredTensor]) -> dict[str, int]:
    """Part of the network -> number of stored values, in the order of `PARTS`."""
    counts = Counter[str]()
    for name, tensor in tensors.items():
        part = next(part for part, pattern in PARTS.items() if re.fullmatch(pattern, name))
        counts[part] += tensor.num_elements
    return {part: counts[part] for part in PARTS if part in counts}


def head_table(description: Description) -> Table:
    """What the checkpoint is."""
    return facts(
        checkpoint=description.path,
        kind=description.kind,
        actions=", ".join(description.actions) or "none",
    )


def robot_table(robot: Robot) -> Table:
    """What one embodiment sees, moves and is told."""
    return facts(
        robot=robot.tag,
        setup=robot.setup,
        cameras=", ".join(robot.cameras) or "any, in the order of training",
        state=f"{len(robot.state_names)}: {', '.join(robot.state_names)}",
        action=f"{len(robot.action_names)}: {', '.join(robot.action_names)}",
        control=robot.control_mode,
        chunk=f"plans {robot.action_horizon} steps, executes {robot.n_action_steps}",
        scaling=robot.normalization,
    )


def facts(**rows: str) -> Table:
    """Names and what they are, one below the other, and an empty line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=10, style="cyan")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.add_row()
    return table


def size_table(description: Description) -> Table:
    """Parameters and memory of every part."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True, title_justify="left", caption_justify="left")
    table.title = f"weights, stored as {', '.join(description.stored_as)}"
    table.add_column("part", footer="loaded")
    table.add_column("parameters", justify="right", footer=f"{sum(description.parameters.values()):,}")
    for precision, memory in description.memory_bytes.items():
        table.add_column(precision, justify="right", footer=decimal(memory))
    for part, count in description.parameters.items():
        table.add_row(part, f"{count:,}", *(decimal(count * size) for size in BYTES.values()))
    if description.ignored_parameters:
        table.caption = f"Not loaded, because no network uses them: {description.ignored_parameters:,} numbers."
    return table
