"""Puts stand-ins of vendors' modules where an import finds them."""

import sys
from types import ModuleType
from typing import Any

import pytest


def install(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Make `import name` give a module with `content`; folders above it are made as needed."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        folder = ".".join(parts[:depth])
        if folder not in sys.modules:
            monkeypatch.setitem(sys.modules, folder, ModuleType(folder))
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make `import name` fail, whether or not it is installed."""
    monkeypatch.setitem(sys.modules, name, None)
