"""studies/think.py: wrong codes reach the policy and nothing else changes; cells are resumed, tabled and drawn."""

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from thinker import tiny_thinker

from molmoact2.envs import make
from molmoact2.envs.variations import NOMINAL
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.setup import make_benchmark
from molmoact2.testing import fake_observation
from molmoact2.types import Observation

SCRIPT = Path(__file__).parents[2] / "studies" / "think.py"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("think_study", SCRIPT)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> PolicyChoice:
    checkpoint = tiny_thinker(tmp_path_factory.mktemp("study") / "thinker")
    return PolicyChoice(name=str(checkpoint), environment="so101", think=True)


class Tabletop:
    """Stands for an environment where only its robot matters."""

    embodiment = "so101_tabletop"


def looks() -> list[Observation]:
    still = fake_observation(seed=1)
    return [fake_observation(seed=0), still, still, fake_observation(seed=2)]


def misled(study: ModuleType, choice: PolicyChoice, kind: str, seed: int = 4) -> list:
    policy = study.open_misled(kind, choice, NOMINAL, Tabletop()).start(seed)
    policy.other_scene = lambda _instruction: fake_observation(seed=99)
    return [policy.act(look) for look in looks()]


def intact(choice: PolicyChoice, seed: int = 4) -> list:
    policy = choice.open(Tabletop()).start(seed)
    return [policy.act(look) for look in looks()]


def codes(chunks: list) -> np.ndarray:
    return np.array([chunk.depth.codes for chunk in chunks])


def test_its_own_codes_given_to_it_change_nothing(study: ModuleType, choice: PolicyChoice):
    for ours, theirs in zip(misled(study, choice, "own"), intact(choice), strict=True):
        np.testing.assert_array_equal(ours.depth.codes, theirs.depth.codes)
        np.testing.assert_allclose(ours.actions, theirs.actions, atol=1e-3)


@pytest.mark.parametrize("kind", ["shuffled", "frozen", "wrong-scene", "random"])
def test_other_codes_change_the_actions_and_follow_from_the_seed(study: ModuleType, choice: PolicyChoice, kind: str):
    chunks, again = misled(study, choice, kind), misled(study, choice, kind)
    own = intact(choice)
    np.testing.assert_array_equal(codes(chunks), codes(again))
    assert (codes(chunks) != codes(own)).any()
    assert not any(chunk.depth.changed.any() for chunk in chunks)
    assert max(np.abs(ours.actions - theirs.actions).max() for ours, theirs in zip(chunks, own, strict=True)) > 1e-3


def test_what_the_kinds_of_codes_are(study: ModuleType, choice: PolicyChoice):
    own = codes(intact(choice))
    shuffled = codes(misled(study, choice, "shuffled"))
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(own))
    assert (shuffled[1] != shuffled[2]).any()
    np.testing.assert_array_equal(codes(misled(study, choice, "frozen")), np.tile(own[0], (4, 1)))
    elsewhere = choice.open(Tabletop()).start(4).act(fake_observation(seed=99)).depth.codes
    np.testing.assert_array_equal(codes(misled(study, choice, "wrong-scene")), np.tile(elsewhere, (4, 1)))
    drawn = codes(misled(study, choice, "random"))
    assert len({tuple(row) for row in drawn}) == 4


def test_the_wrong_scene_is_another_scene_of_the_same_task(study: ModuleType, choice: PolicyChoice):
    policy = study.open_misled("wrong-scene", choice, NOMINAL, Tabletop()).start(5)
    for instruction, begins in (("pick up the red cube", "pick"), ("put the red cube on the plate", "put")):
        assert policy.other_scene(instruction).instruction.split()[0] == begins


def test_an_ablation_is_measured_resumed_tabled_and_drawn(
    study: ModuleType, choice: PolicyChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def make_short(*arguments: Any, **options: Any) -> tuple[Any, Any]:
        benchmark, protocol = make_benchmark(*arguments, **options)
        return replace(benchmark, open_environment=partial(make, "so101", max_steps=20)), protocol

    monkeypatch.setattr(study, "make_benchmark", make_short)

    def ask(*words: object) -> None:
        parsed = study.parse(["--output", str(tmp_path), *map(str, words)])
        parsed.do(parsed)

    cell = tmp_path / "think" / "camera+random" / "episodes.jsonl"
    ablation = ("ablate", f"think={choice.name}", "--kinds", "random", "--conditions", "camera", "--workers", 1)
    ask(*ablation, "--episodes", 1)
    first = cell.read_text()
    ask(*ablation, "--episodes", 1)
    assert cell.read_text() == first
    assert len(first.splitlines()) == 3
    protocol = json.loads((cell.parent / "protocol.json").read_text())
    assert (protocol["codes"], protocol["variations"]) == ("random", {"camera": 1.0})

    write_cell(tmp_path / "plain" / "camera", [True, True, False])
    write_cell(tmp_path / "think" / "camera", [True, True, True])
    ask("table")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["policy"], row["codes"], row["successes"]) for row in rows[:2]] == [
        ("plain", "own", 2),
        ("think", "own", 3),
    ]
    assert rows[1]["difference"] == pytest.approx(1 / 3)
    assert rows[2]["against"] == "think, own codes"
    assert rows[2]["pairs"] == {"both": 0, "only_first": 3, "only_second": 0, "neither": 0}
    text = (tmp_path / "table.md").read_text()
    assert "| plain |  |  |  |  | 67 (21 - 94) | 3 |" in text
    assert "| think | camera | random | 0 (0 - 56) | -100 (-100 to -21), p = 0.25 |" in text
    ask("draw", "--picture", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def write_cell(folder: Path, won: list[bool]) -> None:
    folder.mkdir(parents=True)
    records = [
        {
            "task": task, "seed": 1_000_000, "success": success, "failure": None if success else "out of time",
            "each_plan_seconds": [0.05], "stage_seconds": {}, "control_hz": 15.0, "actions_per_plan": 12,
        }
        for task, success in zip(("pick", "plate", "push"), won, strict=True)
    ]  # fmt: skip
    (folder / "episodes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_is_commands_that_a_user_can_give(
    study: ModuleType, choice: PolicyChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: list[list[str]] = []
    monkeypatch.setattr(study, "call", lambda *words: given.append([str(word) for word in words]))
    plain = Path(__file__).parents[2] / "src" / "molmoact2" / "assets" / "nano-so101"
    words = ["--output", str(tmp_path), "run", f"plain={plain}", f"think={choice.name}"]
    parsed = study.parse(words)
    parsed.do(parsed)
    assert len(given) == 2 * len(study.HARD)
    assert [("--think" in command) for command in given] == [False, True] * len(study.HARD)
    assert given[0][-2:] == ["--output", str(tmp_path / "plain" / "nominal")]
    assert "--variation" not in given[0]
    assert given[3][given[3].index("--variation") + 1] == "spatial=1"
    given.clear()
    parsed = study.parse([*words, "--no-think", "--conditions", "nominal"])
    parsed.do(parsed)
    assert not any("--think" in command for command in given)


@pytest.mark.parametrize("word", ["plain", "plain=nowhere", "=checkpoint", "a/b=checkpoint"])
def test_a_policy_without_name_or_checkpoint_is_refused(study: ModuleType, word: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        study.parse(["run", word])
    assert "NAME=CHECKPOINT" in capsys.readouterr().err
