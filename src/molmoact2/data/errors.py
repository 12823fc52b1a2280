"""How a mistake is told: a ValueError that says what is wrong, and what to do."""

from pathlib import Path

RESTORE = "Copy the dataset again, or restore this file from its source."


def require(is_right: bool, message: str) -> None:
    """Raise a ValueError with `message` unless something is right."""
    if not is_right:
        raise ValueError(message)


def malformed(path: Path, problem: str, fix: str = RESTORE) -> ValueError:
    """The error for a dataset file that cannot be used: what is wrong with it, and what to do."""
    return ValueError(f"{path}: {problem}. {fix}")


def expect(is_right: bool, path: Path, problem: str, fix: str = RESTORE) -> None:
    """Refuse a dataset file, in the words of `malformed`, unless something about it is right."""
    if not is_right:
        raise malformed(path, problem, fix)
