"""`molmoact2 tokenizer ...`: from a dataset to a tokenizer, numbers about it, tokens and chunks again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from molmoact2.cli.main import main
from molmoact2.data.chunk_stream import choose_mixture, chunks_in_order, open_sources
from molmoact2.tokens import ActionTokenizer
from small_recordings import NAMES, record_motion

FIT = ["tokenizer", "fit", "--embodiment", "new:toy", "--vocab-size", "160"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("motion") / "dataset"
    record_motion(folder, (60, 45, 30))
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "mine"
    main([*FIT, "--dataset", str(dataset), "--hold-out", "3", "--output", str(folder)])
    return folder


def test_fit_says_what_it_did_and_leaves_a_tokenizer(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main([*FIT, "--dataset", str(dataset), "--output", str(tmp_path / "mine")])
    said = capsys.readouterr().out
    assert "toy: 135 chunks of 1 datasets" in said
    assert "65 of them single levels" in said
    tokenizer = ActionTokenizer.load(tmp_path / "mine")
    assert (tokenizer.vocab_size, tokenizer.layout, tokenizer.min_token) == (160, "dimension", -32)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_mixture_file_gives_what_its_datasets_give(dataset: Path, tmp_path: Path):
    record_motion(tmp_path / "slow", (40,), fps=5, seed=2)
    (tmp_path / "mix.toml").write_text(
        f'[[group]]\nembodiment = "new:toy"\nrate = 0.5\ndatasets = ["{dataset}"]\n'
        '[[group]]\nembodiment = "new:slow"\nrate = 0.5\ndatasets = ["slow"]\n'
    )
    out = tmp_path / "both"
    main(["tokenizer", "fit", "--mixture", str(tmp_path / "mix.toml"), "--vocab-size", "160", "--output", str(out)])
    tokenizer = ActionTokenizer.load(out)
    for source in open_sources(choose_mixture(str(tmp_path / "mix.toml"), (), None), num_chunks=10):
        for chunks in chunks_in_order(source):
            assert tokenizer.can_encode(chunks).all()


def test_eval_prints_and_writes(dataset: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["--dataset", str(dataset), "--embodiment", "new:toy", "--held-out", "3"]
    main(["tokenizer", "eval", "--tokenizer", str(fitted), *arguments, "--output", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    assert all(name in said for name in ("256 bins", "mine", *NAMES))
    bins, mine = json.loads((tmp_path / "out.json").read_text())["measurements"]
    assert (bins["tokenizer"], mine["tokenizer"]) == ("256 bins", "mine")
    assert bins["num_chunks"] == mine["num_chunks"] == 30, "the chunks of the third episode"
    assert mine["tokens_per_chunk"] < bins["tokens_per_chunk"] == 30
    assert mine["failure_rate"] == 0
    assert (tmp_path / "out.png").exists()


def test_tokens_and_back(dataset: Path, fitted: Path, tmp_path: Path):
    (source,) = open_sources(choose_mixture(None, (str(dataset),), "new:toy"), num_chunks=1)
    chunks = np.concatenate(list(chunks_in_order(source)))
    np.save(tmp_path / "chunks.npy", chunks)
    tool = ["--tokenizer", str(fitted)]
    main(["tokenizer", "encode", str(tmp_path / "chunks.npy"), *tool, "--output", str(tmp_path / "a.jsonl")])
    main(["tokenizer", "encode", str(dataset), "--embodiment", "new:toy", *tool, "--output", str(tmp_path / "b.jsonl")])
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    main(["tokenizer", "decode", str(tmp_path / "a.jsonl"), *tool, "--output", str(tmp_path / "read.npy")])
    tokenizer = ActionTokenizer.load(fitted)
    np.testing.assert_array_equal(
        np.load(tmp_path / "read.npy"), tokenizer.decode(tokenizer.encode(chunks), horizon=10, action_dim=3)
    )


def test_tokens_that_are_no_chunk_are_an_error_or_masked(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ids = ActionTokenizer.load(fitted).encode(np.zeros((1, 4, 2)))[0].tolist()
    lines = [{"ids": found, "horizon": 4, "action_dim": 2} for found in (ids, ids[:-1], ids)]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["tokenizer", "decode", str(tmp_path / "ids.jsonl"), "--tokenizer", str(fitted), "--output"]
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path / "out.npy")])
    assert "1 lines do not hold 4 steps of 2 dimensions, the first are [2]" in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()
    main([*command, str(tmp_path / "out.npz")])
    with np.load(tmp_path / "out.npz") as written:
        assert written["is_valid"].tolist() == [True, False, True]
        assert np.isnan(written["chunks"][1]).all()


def test_a_chunk_that_cannot_be_written_leaves_no_file(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.save(tmp_path / "wild.npy", np.full((1, 10, 3), 50.0))
    output = tmp_path / "ids.jsonl"
    with pytest.raises(SystemExit):
        main(["tokenizer", "encode", str(tmp_path / "wild.npy"), "--tokenizer", str(fitted), "--output", str(output)])
    assert "cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wild.npy"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tokenizer", "fit", "--output", "{fitted}", "--dataset", "{dataset}"], "exists already"),
        (["tokenizer", "fit", "--output", "{new}"], "either a mixture or datasets"),
        (["tokenizer", "fit", "--output", "{new}", "--mixture", "openfst"], "openfast"),
        (["tokenizer", "fit", "--output", "{new}", "--mixture", "openfast"], "names of the 737 repositories"),
        (["tokenizer", "fit", "--output", "{new}", "--dataset", "{dataset}", "--chunks", "0"], "at least 1"),
        (["tokenizer", "fit", "--output", "{new}", "--dataset", "{dataset}", "--hold-out", "1"], "every 2nd"),
        ([*FIT, "--output", "{new}", "--dataset", "{dataset}", "--vocab-size", "20"], "vocab_size must be 65"),
        (["tokenizer", "eval", "--tokenizer", "{dataset}", "--dataset", "{dataset}"], "is no action tokenizer"),
        (["tokenizer", "eval", "--tokenizer", "{fitted}", "{fitted}", "--dataset", "x"], "different names"),
        (["tokenizer", "eval", "--dataset", "{dataset}", "--output", "out.csv"], "must be a .json"),
        (["tokenizer", "decode", "{dataset}", "--tokenizer", "{fitted}", "--output", "out.txt"], ".npy or .npz"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    complaint: str,
    dataset: Path,
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    names = {"dataset": dataset, "fitted": fitted, "new": tmp_path / "new"}
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(**names) for argument in arguments])
    assert stopped.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


KILLED = """
import os, signal, sys
os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from molmoact2.cli.main import main
main(sys.argv[1:])
"""


def test_a_killed_fit_leaves_nothing_and_begins_anew(dataset: Path, tmp_path: Path):
    command = [*FIT, "--dataset", str(dataset), "--output", str(tmp_path / "mine")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mine").exists()
    main(command)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert ActionTokenizer.load(tmp_path / "mine").table.size == 160
