"""`molmoact2 data filter`: lists, datasets, several sources, and the table of what was dropped."""

import json
import shutil

import pytest
from test_data_check import record

from molmoact2.cli.main import main
from molmoact2.data import LeRobotDataset


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return record(tmp_path_factory.mktemp("toys") / "toys", black=False)


def test_a_list_and_a_table(toys, tmp_path, capsys):
    output = tmp_path / "kept.json"
    main(["data", "filter", str(toys), "--output", str(output), "--shortest-span", "2"])
    assert json.loads(output.read_text())["episodes"] == []
    said = " ".join(capsys.readouterr().out.split())
    assert "short 3 3 45 100.0% shorter than 2 s" in said
    assert "kept 0 0 0 0.0%" in said


def test_a_dataset(toys, tmp_path):
    main(["data", "filter", str(toys), "--output", str(tmp_path / "kept"), "--idle", "--slowest", "a", "0.01"])
    assert len(LeRobotDataset(tmp_path / "kept").episodes) == 3


def test_several_sources(toys, tmp_path, capsys):
    for name in ("eval_toys", "more"):
        shutil.copytree(toys, tmp_path / name)
    sources = [str(toys), str(tmp_path / "eval_toys"), str(tmp_path / "more")]
    main(["data", "filter", *sources, "--output", str(tmp_path / "kept")])
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["more", "toys"]
    assert "evaluation set" in capsys.readouterr().out
    main(["data", "filter", *sources, "--output", str(tmp_path / "kept.json")])
    kept = json.loads((tmp_path / "kept.json").read_text())["sources"]
    assert [len(kept[source]["episodes"]) for source in sources] == [3, 0, 3]


def test_one_damaged_source_does_not_stop_the_others(toys, tmp_path, capsys):
    output = tmp_path / "kept.json"
    (tmp_path / "broken").mkdir()
    main(["data", "filter", str(toys), str(tmp_path / "broken"), "--output", str(output)])
    assert "unreadable" in capsys.readouterr().out
    kept = json.loads(output.read_text())["sources"]
    assert kept[str(tmp_path / "broken")]["dropped"][0]["rule"] == "unreadable"
    assert "info.json" in kept[str(tmp_path / "broken")]["dropped"][0]["reason"]
    assert kept[str(toys)]["episodes"] == [0, 1, 2]
    with pytest.raises(SystemExit) as stop:
        main(["data", "filter", str(tmp_path / "broken"), "--output", str(tmp_path / "none.json")])
    assert stop.value.code == 2
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--licences", "mit"], "Nothing is left"),
        (["--dropped-names", "("], "not a regular expression"),
        (["--rewards", "nothing.json"], "nothing.json"),
        (["--least-reward", "3"], "reward is 0 to 1"),
    ],
)
def test_mistakes_write_nothing(toys, tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        main(["data", "filter", str(toys), "--output", str(tmp_path / "kept"), *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_two_sources_of_one_name_are_refused(toys, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["data", "filter", str(toys), str(toys), "--output", str(tmp_path / "kept")])
    assert "no two of the same name" in capsys.readouterr().err
