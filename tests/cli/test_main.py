"""The command line: which command runs, and what a user sees when it cannot."""

import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import tyro

from molmoact2.cli import main as cli


@dataclass(frozen=True)
class Echo:
    """Say something."""

    words: tyro.conf.Positional[str]
    """What to say."""
    loud: bool = False
    """Say it in capitals."""

    def run(self) -> None:
        print(self.words.upper() if self.loud else self.words)


@dataclass(frozen=True)
class Refuse:
    """Be asked for something impossible."""

    def run(self) -> None:
        raise ValueError("num_steps must be at least 1, got 0.")


@dataclass(frozen=True)
class Interrupted:
    """Be stopped half way."""

    def run(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch):
    """Replace the table by three small commands."""
    module = ModuleType("small_commands")
    vars(module).update(Echo=Echo, Refuse=Refuse, Interrupted=Interrupted)
    monkeypatch.setitem(sys.modules, "small_commands", module)
    table = {
        kind.__name__.lower(): (f"small_commands:{kind.__name__}", kind.__doc__) for kind in (Echo, Refuse, Interrupted)
    }
    monkeypatch.setattr(cli, "COMMANDS", table)


def test_flags_reach_the_command(capsys: pytest.CaptureFixture[str]):
    cli.main(["echo", "hello", "--loud"])
    assert capsys.readouterr().out == "HELLO\n"


def test_a_users_mistake_is_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["refuse"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: num_steps must be at least 1, got 0.\n"


def test_a_misspelt_command_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["ecko"])
    assert stop.value.code == 2
    assert "Did you mean 'echo'?" in capsys.readouterr().err


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["echo", "hello", "--quietly"])
    assert stop.value.code == 2
    assert "--quietly" in capsys.readouterr().err


def test_interrupting_ends_with_the_code_shells_expect():
    with pytest.raises(SystemExit) as stop:
        cli.main(["interrupted"])
    assert stop.value.code == 130


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    cli.main(arguments)
    listed = capsys.readouterr().out
    assert all(name in listed and summary in listed for name, (_, summary) in cli.COMMANDS.items())


def test_help_of_a_command_shows_what_its_flags_do(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["echo", "--help"])
    assert stop.value.code == 0
    assert "Say it in capitals." in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("molmoact2 0.")


def test_help_imports_nothing_heavy():
    script = "import sys; from molmoact2.cli.main import main; main([]); print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"torch", "tyro", "rich", "pyarrow", "av", "matplotlib"} & set(result.stdout.splitlines())


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch):
    """Two commands that share a first word."""
    table = {f"say {name}": entry for name, entry in cli.COMMANDS.items()}
    monkeypatch.setattr(cli, "COMMANDS", {**cli.COMMANDS, **table})


@pytest.mark.usefixtures("subject")
def test_a_command_of_two_words_runs(capsys: pytest.CaptureFixture[str]):
    cli.main(["say", "echo", "hello"])
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.usefixtures("subject")
@pytest.mark.parametrize("arguments", [["say"], ["say", "--help"]])
def test_a_subject_alone_lists_its_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    cli.main(arguments)
    listed = capsys.readouterr().out
    assert "say echo" in listed
    assert "  echo" not in listed


@pytest.mark.usefixtures("subject")
def test_a_misspelt_second_word_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["say", "ecko"])
    assert "Did you mean 'say echo'?" in capsys.readouterr().err
