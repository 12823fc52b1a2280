"""A server and a dataset for the tests of annotation."""

import os
import shutil

import pytest
from fake_endpoint import FakeServer, record_dataset

from molmoact2.data import LeRobotDataset


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """Five episodes, of which number 3 shows nothing that moves; not to be changed."""
    return record_dataset(tmp_path_factory.mktemp("recorded") / "toys").root


@pytest.fixture
def dataset(tmp_path, recorded):
    """A copy of it."""
    return LeRobotDataset(shutil.copytree(recorded, tmp_path / "toys"))
