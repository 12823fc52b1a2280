"""The `molmoact2` command: find the subcommand by name, read its flags, run it.

A subcommand is a frozen dataclass in `cli/<name>.py`: its fields are the flags, its `run` does the work. Only the
module of the subcommand that was asked for is imported, so help and mistakes are answered at once.
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Protocol

from molmoact2.registry import unknown

COMMANDS = {
    "inspect": ("molmoact2.cli.inspect:Inspect", "Say what a checkpoint is, without loading its weights."),
    "predict": ("molmoact2.cli.predict:Predict", "Ask a checkpoint for one chunk of actions."),
    "record": ("molmoact2.cli.record:Record", "Record the scripted expert in simulation as a LeRobot dataset."),
    "train": ("molmoact2.cli.train:Train", "Train a policy from a named recipe."),
    "evaluate": ("molmoact2.cli.evaluate:Evaluate", "Measure how often a policy succeeds."),
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


def run(name: str = "--help", *arguments: str) -> None:
    """Run one subcommand, or answer `--help` or `--version`."""
    match name:
        case "--help" | "-h":
            print(usage())
        case "--version":
            print(f"molmoact2 {importlib.metadata.version('molmoact2')}")
        case _:
            parse(name, arguments).run()


def parse(name: str, arguments: Sequence[str]) -> Command:
    """The subcommand `name` with its flags filled in."""
    import tyro

    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module, kind = COMMANDS[name][0].split(":")
    command = vars(importlib.import_module(module))[kind]
    return tyro.cli(command, prog=f"molmoact2 {name}", args=arguments)


def usage() -> str:
    """The table of commands."""
    lines = [f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items()]
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
