"""The documentation is true: its commands and its Python run, its links lead somewhere, its map is complete.

A page is run from top to bottom in one empty folder, which holds what its reader is assumed to have: a folder
`checkpoint`, and pictures of two cameras.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from molmoact2.testing import fake_observation, tiny_checkpoint

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")

RUN_ELSEWHERE = {
    "git clone": "by whoever reads this",
    "make ": "by .ci/run, whose targets they are",
    "pip install": "by make, which sets everything up",
    "apt-get install": "by an administrator",
    "molmoact2 train": "in small by tests/training",
    "molmoact2 finetune you/": "with the bundled policy by docs/finetune.md",
    "python studies/": "in small by tests/cli/test_training_stages.py",
    "torchrun": "with two processes by tests/training",
    "molmoact2 demo": "with the expert by tests/cli/test_demo.py",
    "molmoact2 evaluate --policy runs/": "with the expert by docs/cli.md",
    "molmoact2 depth fit runs/": "in small by tests/cli/test_learning_to_think.py",
    "molmoact2 depth label runs/": "in small by tests/cli/test_learning_to_think.py",
    "molmoact2 finetune demonstrations/": "in small by tests/cli/test_learning_to_think.py",
    "molmoact2 record --output recordings/": "in small by docs/cli.md",
    "molmoact2 predict --policy checkpoint --dataset": "by tests/evaluation",
}
"""Beginning of a command that takes too long or changes the machine -> where it is run instead."""


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    tiny_checkpoint(tmp_path / "checkpoint")
    for name, image in fake_observation().images.items():
        Image.fromarray(np.asarray(image)).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page: Path, sandbox: Path):
    for language, code in BLOCK.findall(page.read_text()):
        run(code if language == "python" else runnable(code), language, sandbox)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs(example: Path, tmp_path: Path):
    run(example.read_text(), "python", tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    links = [link for link in LINK.findall(page.read_text()) if not link.startswith("docs/images/")]
    dead = [link for link in links if not (page.parent / link).exists()]
    assert not dead, f"{page.name} links to {dead}"


def test_readme_maps_the_whole_package():
    tree = (ROOT / "README.md").read_text()
    parts = {path.name for path in (ROOT / "src" / "molmoact2").iterdir()} - {"__init__.py", "__pycache__"}
    unmapped = [part for part in sorted(parts) if f"\n  {part} " not in tree and f"\n  {part}/ " not in tree]
    assert not unmapped, f"README.md does not say what {unmapped} are for"


def runnable(script: str) -> str:
    """The lines of a shell script that are not run elsewhere."""
    return "\n".join(line for line in script.splitlines() if not line.startswith(tuple(RUN_ELSEWHERE)))


def run(code: str, language: str, folder: Path) -> None:
    """Run shell or Python in `folder`, with this interpreter's tools first on the path."""
    command = {"bash": ["bash", "-euo", "pipefail", "-c", code], "python": [sys.executable, "-c", code]}[language]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{code}\n{result.stderr}"
