"""Every command of the table is there, frozen, and explains itself."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from molmoact2.cli.main import COMMANDS, main

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_a_frozen_dataclass_that_runs(name: str):
    module, kind = COMMANDS[name][0].split(":")
    subject, *rest = name.split()
    assert module.startswith(f"molmoact2.cli.{subject}")
    assert len(module.split(".")) == 3 + len(rest), "a command of two words lives in the folder of its subject"
    command = vars(importlib.import_module(module))[kind]
    assert command.__dataclass_params__.frozen
    assert callable(command.run)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    module, kind = COMMANDS[name][0].split(":")
    shown = capsys.readouterr().out.lower().replace("-", "_")
    command = vars(importlib.import_module(module))[kind]
    flags = [field.name for field in fields(command) if "Positional" not in str(command.__annotations__[field.name])]
    assert all(flag in shown for flag in flags)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_its_place_in_the_documentation(name: str):
    assert f"\n## {name}\n" in PAGE.read_text()
