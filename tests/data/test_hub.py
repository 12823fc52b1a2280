"""Datasets by their hub id: what is downloaded, which revision, and how failures are told."""

from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from molmoact2.data import datasets, open_dataset


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, recorded_once: Path) -> list[dict[str, object]]:
    """What the hub was asked for; it answers with the recorded dataset."""
    calls: list[dict[str, object]] = []

    def answer(repo_id: str, **options: object) -> str:
        calls.append({"repo_id": repo_id, **options})
        return str(recorded_once)

    monkeypatch.setattr(datasets, "snapshot_download", answer)
    return calls


def test_an_id_is_downloaded(asked):
    assert len(open_dataset("lerobot/pusht", revision="v3.0")) == 30
    (call,) = asked
    assert (call["repo_id"], call["repo_type"], call["revision"]) == ("lerobot/pusht", "dataset", "v3.0")
    assert call["allow_patterns"] == ["meta/*", "data/*", "videos/*"]


def test_a_folder_is_not_looked_up(asked, recorded_once):
    assert len(open_dataset(recorded_once)) == len(open_dataset(str(recorded_once))) == 30
    assert asked == []


def test_a_revision_of_a_folder(recorded_once):
    with pytest.raises(ValueError, match="A revision is for hub ids"):
        open_dataset(recorded_once, revision="main")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "/nowhere/at/all", "a b/c", ""])
def test_neither_folder_nor_id(asked, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if source:
        with pytest.raises(ValueError, match="neither a folder nor a hub id"):
            open_dataset(source)
    else:
        with pytest.raises(ValueError, match=r"info.json: the file is missing"):
            open_dataset(source)  # the current folder
    assert asked == []


def test_an_unreachable_hub(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(datasets, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"could not give the dataset lerobot/pusht at its newest revision: offline"):
        open_dataset("lerobot/pusht")


def test_rlds_is_sent_to_the_converter(tmp_path):
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(ValueError, match="molmoact2 data convert"):
        open_dataset(tmp_path)
