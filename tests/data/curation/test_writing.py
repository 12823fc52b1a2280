"""Lists and datasets of what was kept: the same numbers and images, all or nothing, also under kill -9."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from molmoact2.data import LeRobotDataset
from molmoact2.data.curation.curate import curate
from molmoact2.data.curation.gates import Curation
from molmoact2.data.curation.writing import SELECTION_PATH, open_partial, schema_for, write_dataset, write_list

FILTER = """
import sys
from pathlib import Path
from molmoact2.data import LeRobotDataset
from molmoact2.data.curation.curate import curate
from molmoact2.data.curation.gates import Curation
from molmoact2.data.curation.writing import write_dataset

selection = curate(sys.argv[1], Curation(drops_idle=True))
print("ready", flush=True)
write_dataset(LeRobotDataset(sys.argv[1]), selection, Path(sys.argv[2]))
"""


@pytest.fixture
def selection(toys):
    """What is kept of the toys when pauses are cut out."""
    return curate(toys, Curation(drops_idle=True))


def assert_is_the_selection(output, toys, selection):
    source, written = LeRobotDataset(toys), LeRobotDataset(output)
    assert len(written.episodes) == len(selection.spans)
    for number, span in enumerate(selection.spans):
        whole, part, rows = source.episode(span.episode), written.episode(number), slice(span.first, span.last + 1)
        np.testing.assert_array_equal(part.state, whole.state[rows])
        np.testing.assert_array_equal(part.action, whole.action[rows])
        assert part.task == whole.task
        assert np.abs(part.images["eye"].astype(int) - whole.images["eye"][rows]).mean() < 3
        for name, column in whole.extras.items():
            np.testing.assert_array_equal(part.extras[name], column[rows])
    assert written.column("timestamp")[written.episodes[-1].from_index] == 0


def test_spans_become_episodes(toys, selection, tmp_path):
    output = tmp_path / "kept"
    write_dataset(LeRobotDataset(toys), selection, output)
    assert_is_the_selection(output, toys, selection)
    assert json.loads((output / SELECTION_PATH).read_text()) == selection.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(ValueError, match="is there already"):
        write_dataset(LeRobotDataset(toys), selection, output)


def test_lists(toys, selection, tmp_path):
    write_list(tmp_path / "one.json", [selection])
    one = json.loads((tmp_path / "one.json").read_text())
    assert one["episodes"] == [0, 1, 5, 6, 7]
    assert one["spans"][0] == [0, 0, 39]
    assert one["kept"]["frames"] + sum(part["frames"] for part in one["dropped"]) == one["of"]["frames"]
    other = shutil.copytree(toys, tmp_path / "other")
    write_list(tmp_path / "two.json", [selection, curate(other, Curation())])
    assert set(json.loads((tmp_path / "two.json").read_text())["sources"]) == {str(toys), str(other)}


def test_an_interrupted_dataset_goes_on(toys, selection, tmp_path):
    dataset, partial = LeRobotDataset(toys), tmp_path / "kept.partial"
    write_dataset(dataset, selection, tmp_path / "kept")
    shutil.move(tmp_path / "kept", partial)
    assert open_partial(partial, schema_for(dataset), selection).num_episodes == len(selection.spans)
    write_dataset(dataset, selection, tmp_path / "kept")
    assert_is_the_selection(tmp_path / "kept", toys, selection)
    other = curate(toys, Curation())
    shutil.move(tmp_path / "kept", partial)
    assert open_partial(partial, schema_for(dataset), other).num_episodes == 0, "another selection starts over"


def test_what_is_not_ours_is_left_alone(toys, selection, tmp_path):
    thesis = tmp_path / "kept.partial" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(ValueError, match="is in the way"):
        write_dataset(LeRobotDataset(toys), selection, tmp_path / "kept")
    assert thesis.exists()


def test_killed_by_the_system(toys, selection, tmp_path):
    rng, output = random.Random(0), tmp_path / "kept"
    command = [sys.executable, "-c", FILTER, str(toys), str(output)]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.0, 0.08))
            process.send_signal(signal.SIGKILL)
        if output.exists():
            assert_is_the_selection(output, toys, selection)
            shutil.move(output, tmp_path / "kept.partial")
    write_dataset(LeRobotDataset(toys), selection, output)
    assert_is_the_selection(output, toys, selection)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_features_that_cannot_be_written_are_named(toys, tmp_path):
    root = Path(shutil.copytree(toys, tmp_path / "copy"))
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["note"] = {"dtype": "string", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match="note"):
        schema_for(LeRobotDataset(root))


def test_nothing_left_is_no_dataset(toys, tmp_path):
    nothing = curate(toys, Curation(licences=("none",)))
    with pytest.raises(ValueError, match="Nothing is left"):
        write_dataset(LeRobotDataset(toys), nothing, tmp_path / "kept")
    assert not list(tmp_path.iterdir())
