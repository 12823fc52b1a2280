"""The study of acting while thinking, in small: it goes on where it was, and tells its table."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

STUDY = Path(__file__).parents[2] / "studies" / "asynchronous.py"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("asynchronous_study", STUDY)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "asynchronous_study", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OUTPUT", tmp_path)
    monkeypatch.setattr(module, "EPISODES", 1)
    return module


@pytest.mark.slow
def test_without_latency_it_is_the_evaluation(study: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study.run(["virtual-0"])
    study.run(["virtual-0"])
    study.table()
    shown = capsys.readouterr().out
    assert shown.count("virtual-0: 3 of 3") == 2, "the second time there is nothing left to do"
    rows = [line for line in shown.splitlines() if line.startswith("| replan every 12")]
    assert len(rows) == 1
    assert rows[0].startswith("| replan every 12 | 0 ms | 3 of 3, 100% (44-100) | +0.0 |")
    assert len((tmp_path / "virtual-0" / "episodes.jsonl").read_text().splitlines()) == 3
