"""The page of a data check: self-contained, escaped, and with a place for everything that was found."""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_report import Outline

from molmoact2.data.quality.checking import check_material, unreadable
from molmoact2.data.quality.material import Material, Sample, make_vector
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.evaluation.quality_report import SHOWN_PLACES, write_quality_page


@pytest.fixture(scope="module")
def report():
    """60 episodes of noise: a black camera, two instructions of one kind, and a value that is not there."""
    rng = np.random.default_rng(0)
    state, action = rng.normal(size=(2, 1200, 6)) * 10
    action[30, 2] = np.nan
    names = SO101_TABLETOP.state_names
    frames = np.array([0, 10, 19])
    material = Material(
        source="runs/<kitchen>",
        fps=15.0,
        state=make_vector("state", state, names, SO101_TABLETOP),
        action=make_vector("action", action, names, SO101_TABLETOP),
        timestamps=np.tile(np.arange(20) / 15, 60),
        starts=np.arange(60) * 20,
        instructions=("pick <it> up", "Pick <it> up!") * 30,
        cameras=("front", "wrist"),
        embodiment=SO101_TABLETOP,
        samples=tuple(
            Sample(camera=camera, episode=episode, frames=frames, images=np.zeros((3, 24, 32, 3), np.uint8))
            for episode in range(8)
            for camera in ("front", "wrist")
        ),
        has_images=True,
        facts={"episodes": 60, "frames": 1200, "hours": 0.02, "frames per second": 15.0, "cameras": ["front", "wrist"]},
    )
    return check_material(material)


def page_of(report, folder) -> str:
    path = folder / "page.html"
    write_quality_page(report, path)
    return path.read_text()


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    return page_of(report, tmp_path_factory.mktemp("page"))


def test_it_needs_no_network(page):
    addresses = Outline(page).addresses
    assert len(addresses) == 16
    assert all(address.startswith("data:image/jpeg") for address in addresses)
    assert not re.findall(r"https?://|@import|<link|<script", re.sub(r"data:[^\"]+", "", page))


def test_every_finding_is_told_with_reason_and_remedy(page, report):
    assert page.count('<article class="card finding">') == len(report.findings)
    assert f'<div class="big {report.grade}">{report.grade}</div>' in page
    words = re.sub(r"\s+", " ", page)
    assert all(rule in words for rule in ("not_finite", "blank_camera", "spelling"))
    longest = max(len(finding.places) for finding in report.findings)
    assert f"and {longest - SHOWN_PLACES} more" in page


def test_every_dimension_has_its_range(page):
    assert page.count('<span class="limits"') == 12
    assert page.count('<span class="median"') == 12


def test_names_are_escaped(page):
    assert "&lt;kitchen&gt;" in page
    assert "“pick &lt;it&gt; up”" in page
    assert "<it>" not in page


def test_every_tag_is_closed(page):
    body = page[page.index("<main>") :]
    for tag in ("div", "section", "article", "figure", "span", "dl", "dd", "details", "p", "b", "svg", "ul", "li"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == len(re.findall(rf"</{tag}>", body)), tag


def test_constant_dimensions_and_unknown_limits_can_be_drawn(report, tmp_path):
    vector = make_vector("state", np.ones((1200, 2)), ("a", "b"), None)
    material = replace(report.material, state=vector, action=vector, embodiment=None)
    page = page_of(check_material(material), tmp_path)
    assert '<span class="limits"' not in page
    assert "nan" not in page.lower().split("<main>")[1].replace("not a", "")


def test_a_dataset_that_cannot_be_opened_has_a_page_too(tmp_path):
    page = page_of(unreadable("nothing", "there is no such dataset"), tmp_path)
    assert "there is no such dataset" in page
    assert '<div class="big F">F</div>' in page
