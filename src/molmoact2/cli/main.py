"""The `molmoact2` command: find the subcommand by name, read its flags, run it.

A subcommand is a frozen dataclass in `cli/<name>.py`: its fields are the flags, its `run` does the work. Subcommands on
one subject share a first word and a folder, such as "data check" in `cli/data/check.py`. Only the module of the
subcommand that was asked for is imported, so help and mistakes are answered at once.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from molmoact2.registry import unknown

COMMANDS = {
    "inspect": ("molmoact2.cli.inspect:Inspect", "Say what a checkpoint is, without loading its weights."),
    "predict": ("molmoact2.cli.predict:Predict", "Ask a checkpoint for one chunk of actions."),
    "record": ("molmoact2.cli.record:Record", "Record the scripted expert in simulation as a LeRobot dataset."),
    "train": ("molmoact2.cli.train:Train", "Train a policy from a named recipe."),
    "evaluate": ("molmoact2.cli.evaluate:Evaluate", "Measure how often a policy succeeds."),
    "serve": ("molmoact2.cli.serve:Serve", "Serve a policy to robots on the network."),
    "run": ("molmoact2.cli.run:Run", "Let a policy move an arm, real or simulated."),
    "doctor": ("molmoact2.cli.doctor:Doctor", "Compare a robot with a checkpoint before it moves."),
    "replay": ("molmoact2.cli.replay:Replay", "Ask again what a server was asked, from its flight record."),
    "data info": ("molmoact2.cli.data.info:Info", "Say what a dataset is: robot, cameras, episodes, tasks."),
    "data stats": ("molmoact2.cli.data.stats:Stats", "Exact statistics of one dataset, or of several pooled."),
    "data check": ("molmoact2.cli.data.check:Check", "Look for everything that is wrong with a dataset, and grade it."),
    "data convert": ("molmoact2.cli.data.convert:Convert", "Turn LeRobot v2.1 or RLDS data into LeRobot v3.0."),
    "data filter": ("molmoact2.cli.data.filter:Filter", "Keep what is worth learning from."),
    "data annotate": ("molmoact2.cli.data.annotate:Annotate", "Write new instructions with a vision-language model."),
    "tokenizer fit": ("molmoact2.cli.tokenizer.fit:Fit", "Fit an OpenFAST action tokenizer to datasets."),
    "tokenizer eval": ("molmoact2.cli.tokenizer.evaluate:Evaluate", "Compare action tokenizers on datasets."),
    "tokenizer encode": ("molmoact2.cli.tokenizer.encode:Encode", "Turn a file of action chunks into tokens."),
    "tokenizer decode": ("molmoact2.cli.tokenizer.decode:Decode", "Turn tokens back into action chunks."),
    "depth fit": ("molmoact2.cli.depth.fit:Fit", "Fit a codec of depth maps."),
    "depth label": ("molmoact2.cli.depth.label:Label", "Write the depth maps of a dataset beside it, as codes."),
    "depth view": ("molmoact2.cli.depth.view:View", "Look at the depth maps of a dataset."),
    "finetune": ("molmoact2.cli.finetune:Finetune", "Fine-tune a checkpoint on a LeRobot dataset."),
    "report": ("molmoact2.cli.report:Report", "Say what a training taught: errors, and what the policy looks at."),
    "demo": ("molmoact2.cli.demo:Demo", "Watch the bundled policy work, and get a report."),
}
"""Name -> where the subcommand lives, and what it does in one sentence."""


class Command(Protocol):
    """What every entry of `COMMANDS` is."""

    def run(self) -> None:
        """Do what was asked for; a `ValueError` is the user's mistake."""
        ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `molmoact2 ARGUMENTS`; exits with 2 on a user's mistake and with 130 on Ctrl-C."""
    try:
        run(*(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        print_error(str(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def run(*words: str) -> None:
    """Run one subcommand, or answer `--help` or `--version`."""
    match words:
        case () | ("--help" | "-h", *_):
            print(usage(COMMANDS))
        case ("--version", *_):
            print(f"molmoact2 {importlib.metadata.version('molmoact2')}")
        case (subject,) | (subject, "--help" | "-h") if group := commands_on(subject):
            print(usage(group))
        case (subject, name, *arguments) if commands_on(subject):
            parse(f"{subject} {name}", arguments).run()
        case (name, *arguments):
            parse(name, arguments).run()


def commands_on(subject: str) -> dict[str, tuple[str, str]]:
    """The subcommands that share this first word; none for a subcommand of one word."""
    return {name: entry for name, entry in COMMANDS.items() if name.startswith(f"{subject} ")}


def parse(name: str, arguments: Sequence[str]) -> Command:
    """The subcommand `name` with its flags filled in."""
    import tyro

    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module, kind = COMMANDS[name][0].split(":")
    command = vars(importlib.import_module(module))[kind]
    return tyro.cli(command, prog=f"molmoact2 {name}", args=arguments)


def usage(commands: Mapping[str, tuple[str, str]]) -> str:
    """The table of `commands`."""
    lines = [f"  {name:<18}{summary}" for name, (_, summary) in commands.items()]
    return "\n".join(
        [
            "usage: molmoact2 [--help] [--version] COMMAND ...",
            "",
            *lines,
            "",
            "The flags of a command: molmoact2 COMMAND --help",
        ]
    )


def print_error(message: str) -> None:
    """Print `error: message` on standard error, in red on a terminal."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(f"error: {message}", style="bold red"), soft_wrap=True)


if __name__ == "__main__":
    main()
