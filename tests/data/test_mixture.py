"""Mixtures have the published shares, and files change them; what is not known is asked for, not left out."""

import math
from pathlib import Path

import pytest

from molmoact2.data.mixture import Group, Mixture, read_mixture
from molmoact2.data.mixtures import MIXTURES
from molmoact2.data.robot_stream import open_stream
from molmoact2.embodiments import EMBODIMENTS


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "mix.toml"
    path.write_text(content)
    return path


def fake_dataset(folder: Path) -> Path:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text("{}")
    return folder


def shares(name: str) -> dict[str, float]:
    return {group.tag: group.rate for group in read_mixture(name).groups}


def test_published_shares():
    assert shares("pre_post_train") == {
        "yam_dual_molmoact2": 0.3,
        "so100_so101_molmoact2": 0.3,
        "franka_droid": 0.3,
        "franka_molmoact": 0.025,
        "google_robot_bc_z": 0.025,
        "google_robot_fractal": 0.025,
        "widowx_bridge": 0.025,
    }
    fast = shares("openfast")
    assert {tag: round(rate, 4) for tag, rate in fast.items()} == {
        "yam_dual_molmoact2": 0.3,
        "so100_so101_molmoact2": 0.3,
        "franka_droid": 0.3,
        "google_robot_fractal": 0.0333,
        "google_robot_bc_z": 0.0333,
        "widowx_bridge": 0.0333,
    }
    assert math.isclose(sum(fast.values()), 1)
    assert math.isclose(sum(shares("pre_post_train").values()), 1)


@pytest.mark.parametrize("name", MIXTURES)
def test_every_named_mixture_is_of_known_robots(name):
    mixture = read_mixture(name)
    assert mixture.name == name
    for group in mixture.groups:
        robot = EMBODIMENTS[group.tag]
        assert {*group.cameras, *group.cameras_alternative} <= {*robot.cameras}


@pytest.mark.parametrize(("name", "words"), [("yam", "737"), ("so100_so101", "1,220"), ("pre_post_train", "737")])
def test_names_that_were_not_published_are_asked_for(name, words):
    with pytest.raises(ValueError, match=words) as error:
        open_stream(read_mixture(name), seed=0)
    assert "[[group]]" in str(error.value)


def test_a_file_changes_a_named_mixture(tmp_path):
    folder = fake_dataset(tmp_path / "yam" / "one")
    path = write(
        tmp_path,
        """
        like = "pre_post_train"
        [[group]]
        embodiment = "yam_dual_molmoact2"
        datasets = ["yam/*"]
        [[group]]
        embodiment = "libero"
        rate = 0.1
        datasets = ["allenai/MolmoAct2-LIBERO-Dataset"]
        size_factor = 0
        """,
    )
    mixture = read_mixture(path)
    groups = {group.tag: group for group in mixture.groups}
    assert mixture.name == "mix"
    assert list(groups) == [*shares("pre_post_train"), "libero"]
    assert groups["yam_dual_molmoact2"].rate == 0.3
    assert groups["yam_dual_molmoact2"].folders() == (str(folder),)
    assert groups["libero"] == Group(
        tag="libero", rate=0.1, datasets=("allenai/MolmoAct2-LIBERO-Dataset",), size_factor=0
    )
    assert groups["franka_droid"] == read_mixture("pre_post_train").groups[2]


def test_folders_and_cards_are_beside_the_file(tmp_path):
    folder = fake_dataset(tmp_path / "own")
    path = write(
        tmp_path, '[[group]]\nembodiment = "arm.toml"\nrate = 2\ndatasets = ["own", "owner/name"]\ncameras = ["top"]\n'
    )
    (group,) = read_mixture(str(path)).groups
    assert group.tag == str(tmp_path / "arm.toml")
    assert group.datasets == (str(folder), "owner/name")
    assert (group.rate, group.cameras) == (2.0, ("top",))


def test_patterns_find_datasets_only(tmp_path):
    found = [str(fake_dataset(tmp_path / name)) for name in ("b", "a", "c")]
    (tmp_path / "no_dataset").mkdir()
    (tmp_path / "file").write_text("")
    group = Group(tag="libero", rate=1, datasets=(f"{tmp_path}/*",))
    assert group.folders() == tuple(sorted(found))
    with pytest.raises(ValueError, match=r"names .*a twice"):
        Group(tag="libero", rate=1, datasets=(f"{tmp_path}/*", found[1])).folders()
    with pytest.raises(ValueError, match=r"No folder .* fits '.*none\*'"):
        Group(tag="libero", rate=1, datasets=(f"{tmp_path}/none*",)).folders()


@pytest.mark.parametrize(
    ("size_factor", "num_frames", "weight"), [(None, 100, 10), (0, 100, 1), (0.25, 100, 5), (1, 7, 1), (400.0, 7, 20)]
)
def test_how_much_a_dataset_counts(size_factor, num_frames, weight):
    group = Group(tag="libero", rate=1, datasets=("a",), size_factor=size_factor)
    assert math.isclose(group.weight(num_frames), weight)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("group = 1", "not written as"),
        ("", "no groups"),
        ('colour = "red"', r"unknown fields \['colour'\]"),
        ('like = "pre_post"', "Did you mean 'pre_post_train'"),
        ('[[group]]\nrate = 1\ndatasets = ["a"]', r"lacks \['embodiment'\]"),
        ('[[group]]\nembodiment = "libero"', r"lacks \['datasets', 'rate'\]"),
        ('like = "yam"\n[[group]]\nembodiment = "libero"\nrate = 1', r"lacks \['datasets'\]"),
        ('[[group]]\nembodiment = "libero"\nrate = 0\ndatasets = ["a"]', "'rate' of a group must be a positive"),
        ('[[group]]\nembodiment = "libero"\nrate = 1\ndatasets = "a"', "'datasets' of a group must be a list"),
        ('[[group]]\nembodiment = "libero"\nrate = 1\ndatasets = ["a"]\nsize_factor = -1', "a number from 0 on"),
        ('[[group]]\nembodiment = "libero"\nrate = 1\ndatasets = ["a"]\nweight = 1', r"unknown fields \['weight'\]"),
        ('like = "yam"\n' + '[[group]]\nembodiment = "yam_dual_molmoact2"\n' * 2, "two groups of one embodiment"),
        ("[[group", "not valid TOML"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        read_mixture(path)


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match=r"Did you mean 'libero'.*\.toml"):
        read_mixture("liberto")
    with pytest.raises(ValueError, match="missing"):
        read_mixture("nowhere.toml")


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_rates_are_above_zero(rate):
    with pytest.raises(ValueError, match="rates above 0"):
        Mixture(name="x", groups=(Group(tag="libero", rate=rate, datasets=("a",)),))
