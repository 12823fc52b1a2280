"""The package is built in layers: a part imports only itself and the layers below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "molmoact2"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
"""The package's own `__init__` is its table of contents: it may name every layer."""

LAYERS = (
    {"types", "embodiments", "registry"},
    {"model", "tokens", "wire"},
    {"processing", "depth", "control"},
    {"data", "inference", "client"},
    {"training", "serving", "envs"},
    {"robots", "reasoning"},
    {"evaluation"},
    {"cli", "testing"},
)
LAYER_OF = {part: layer for layer, parts in enumerate(LAYERS) for part in parts}

WITHOUT_TORCH = {"types", "embodiments", "registry", "tokens", "wire", "control", "client", "envs", "robots"}
"""Parts that run where torch is not installed: of the package they import one another only."""


def part_of(path: Path) -> str:
    """The top-level part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def neighbours(path: Path) -> set[str]:
    """The other parts of the package that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("molmoact2.")} - {part_of(path)}


def test_every_part_has_a_layer():
    homeless = {part_of(path) for path in FILES} - LAYER_OF.keys()
    assert not homeless, f"give {sorted(homeless)} a place in LAYERS and in docs/architecture.md"


def test_imports_point_down():
    upward = [
        f"{path.relative_to(PACKAGE)} -> {other}"
        for path in FILES
        for other in neighbours(path) & LAYER_OF.keys()
        if LAYER_OF[other] >= LAYER_OF[part_of(path)]
    ]
    assert not upward, f"imports that do not point down: {upward}"


def test_imports_are_written_out():
    relative = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative, f"relative imports, write molmoact2.… instead: {relative}"


def test_network_knows_nothing_of_robots():
    foreign = {path.name: neighbours(path) for path in FILES if part_of(path) == "model" and neighbours(path)}
    assert not foreign, f"model/ is torch and nothing else: {foreign}"


def test_robot_side_needs_no_torch():
    light = [path for path in FILES if part_of(path) in WITHOUT_TORCH]
    heavy = [path.name for path in light if any(name.split(".")[0] == "torch" for name in imports(path))]
    heavy += [f"{path.name} -> {other}" for path in light for other in neighbours(path) - WITHOUT_TORCH]
    assert not heavy, f"imports that bring torch to the robot: {heavy}"


@pytest.mark.parametrize("module", ["molmoact2", "molmoact2.cli.main", "molmoact2.envs.so101"])
def test_import_leaves_torch_alone(module: str):
    script = f"import sys, {module}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout == "False\n", result.stderr
