"""The house stays light: what may be counted is counted here, and a refusal names the line."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "molmoact2"
SOURCES = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py")) if path.stat().st_size}

FILE_LINES = 500
FUNCTION_LINES = 80
PARAMETERS = 9
"""`self` and eight of one's own."""
BRANCHES_PER_1000_LINES = 35

RENDERER_VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
"""What envs/ may set, because MuJoCo takes its renderer from nowhere else."""


def num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def num_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)


def is_long(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and num_lines(node) > FUNCTION_LINES


def is_wide(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and num_parameters(node) > PARAMETERS


def catches_everything(node: ast.AST) -> bool:
    match node:
        case ast.ExceptHandler(type=None) | ast.ExceptHandler(type=ast.Name(id="Exception" | "BaseException")):
            return True
    return False


def probes(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr")):
            return True
    return False


def places(guilty: Callable[[ast.AST], bool]) -> Iterator[str]:
    """file:line of every guilty node of the package."""
    for path, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if guilty(node):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}"


@pytest.mark.parametrize(
    ("guilty", "remedy"),
    [
        (is_long, f"functions of more than {FUNCTION_LINES} lines: name their steps"),
        (is_wide, f"functions of more than {PARAMETERS} parameters: make a dataclass of them"),
        (catches_everything, "broad excepts: name the error, or let it fail where it breaks"),
        (probes, "getattr, hasattr or setattr: give the thing a type"),
    ],
)
def test_no_function_is_heavy(guilty: Callable[[ast.AST], bool], remedy: str):
    found = list(places(guilty))
    assert not found, f"{remedy}: {', '.join(found)}"


def test_files_fit_in_the_head():
    sizes = {str(path.relative_to(PACKAGE)): len(source.splitlines()) for path, source in SOURCES.items()}
    large = {name: size for name, size in sizes.items() if size > FILE_LINES}
    assert not large, f"files of more than {FILE_LINES} lines, split them by idea: {large}"


def test_files_open_by_saying_what_they_are():
    silent = [
        str(path.relative_to(PACKAGE)) for path, text in SOURCES.items() if not ast.get_docstring(ast.parse(text))
    ]
    assert not silent, f"files without a module docstring: {silent}"


def test_behaviour_does_not_hang_on_the_environment():
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path, source in SOURCES.items()
        for line in source.splitlines()
        if ("os.environ" in line or "os.getenv" in line)
        and not (path.is_relative_to(PACKAGE / "envs") and any(name in line for name in RENDERER_VARIABLES))
    ]
    assert not found, f"the environment is read, make it an argument: {found}"


def test_code_decides_early_and_then_runs_straight():
    branches = len(list(places(lambda node: isinstance(node, ast.If | ast.IfExp))))
    lines = sum(len(source.splitlines()) for source in SOURCES.values())
    assert branches <= BRANCHES_PER_1000_LINES * lines / 1000, f"{branches} branches in {lines} lines"
