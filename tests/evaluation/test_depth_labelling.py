"""Labelling a dataset: source, codec and buffer together, in any number of processes, in any number of sittings."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.data.depth_labels import DepthLabels
from molmoact2.depth import changed_cells
from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, fingerprint, load_codec, save_codec
from molmoact2.depth.sources import CallableDepth
from molmoact2.evaluation import depth_labelling
from molmoact2.evaluation.depth_labelling import Labelling, label_dataset
from molmoact2.evaluation.depth_sources import SourceChoice, choose_source

LENGTHS = (4, 7, 3)


def brightness(dataset, record, camera):
    """A made-up depth: bright is far."""
    return dataset.episode_images(record.episode_index, camera).astype(np.float32).mean(axis=3) / 255


def open_brightness(_dataset, *, change=None):
    def changed(dataset, record, camera):
        depth = brightness(dataset, record, camera)
        return depth if change is None else change(depth, record.episode_index)

    return CallableDepth(function=changed, unit="m", name="brightness")


SOURCE = SourceChoice(name="brightness", unit="m", open=open_brightness)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three episodes of a block that moves in front of noise."""
    folder = tmp_path_factory.mktemp("blocks") / "data"
    schema = DatasetSchema(
        fps=10,
        robot_type="toy",
        state_names=("a",),
        action_names=("a",),
        image_sizes={"eye": (64, 64), "ear": (64, 64)},
    )
    rng = np.random.default_rng(0)
    with DatasetWriter(folder, schema) as writer:
        for length in LENGTHS:
            images = np.repeat(rng.integers(0, 256, (1, 8, 8, 3)), length, axis=0).repeat(8, axis=1).repeat(8, axis=2)
            for number, image in enumerate(images):
                image[10:30, 6 * number : 6 * number + 16] = 255
            images, values = images.astype(np.uint8), np.zeros((length, 1), np.float32)
            pictures = {"eye": images, "ear": images[:, ::-1].copy()}
            writer.add_episode(Episode(images=pictures, state=values, action=values, task="look"))
    return folder


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory):
    """A codec of few weights that mean nothing, but tell maps apart."""
    folder = tmp_path_factory.mktemp("codecs") / "codec"
    scale = DepthScale(kind="fixed", low=0.0, high=1.0)
    torch.manual_seed(0)
    codec = DepthCodec(CodecConfig(channels=(2, 4, 4, 8, 8), code_dim=6, num_codes=12, scale=scale, unit="m"))
    maps = np.random.default_rng(0).random((30, 8, 8), np.float32).repeat(8, axis=1).repeat(8, axis=2)
    with torch.inference_mode():
        levels = (maps * 255).astype(np.uint8)
        features = codec.network.encoder(codec.as_input(levels)).permute(0, 2, 3, 1).flatten(0, 2)
        codec.network.codebook.vectors.copy_(features[torch.randperm(len(features))[:12]])
    save_codec(codec, folder)
    return folder


@pytest.fixture
def labelling(root, codec_folder):
    return Labelling(dataset=root, codec=codec_folder, source=SOURCE, cameras=("ear",))


def everything(folder, root, camera="ear"):
    labels = DepthLabels.open(folder, LeRobotDataset(root))
    return [labels.codes(camera), labels.buffer_codes(camera), labels.updated(camera)]


def test_labels_against_loops(labelling, root, tmp_path):
    summary = label_dataset(labelling, tmp_path / "labels", show_progress=False)
    codes, buffer, updated = everything(tmp_path / "labels", root)
    dataset, codec = LeRobotDataset(root), load_codec(labelling.codec)
    for record in dataset.episodes:
        memory, before = np.zeros(100, np.int64), None
        for frame in range(record.from_index, record.to_index):
            image = dataset.frame(frame).images["ear"]
            fresh = codec.encode(image.astype(np.float32).mean(axis=2)[None] / 255)[0]
            changed = np.ones(100, bool) if before is None else changed_cells(before, image, side=10)
            memory, before = np.where(changed, fresh, memory), image
            np.testing.assert_array_equal(codes[frame], fresh)
            np.testing.assert_array_equal(updated[frame], changed)
            np.testing.assert_array_equal(buffer[frame], memory)
    assert (summary.num_episodes, summary.num_frames, summary.num_labelled) == (3, 14, 14)
    later = np.delete(updated, [0, 4, 11], axis=0)
    assert summary.updated_share == {"ear": pytest.approx(later.mean())}
    assert 0 < later.mean() < 0.9
    assert summary.codes_used == {"ear": len(np.unique(codes))}
    assert summary.codes_used["ear"] > 3
    labels = DepthLabels.open(tmp_path / "labels", dataset)
    assert labels.codec_fingerprint == fingerprint(codec)
    assert labels.run.scale == {"kind": "fixed", "low": 0.0, "high": 1.0}


def test_workers_and_shards_make_no_difference(labelling, root, tmp_path):
    labelling = replace(labelling, cameras=("eye", "ear"))
    label_dataset(labelling, tmp_path / "one", show_progress=False)
    label_dataset(labelling, tmp_path / "two", num_workers=2, show_progress=False)
    for shard in range(3):
        label_dataset(labelling, tmp_path / "shards", shard=(shard, 3), show_progress=False)
    for camera in ("eye", "ear"):
        one = everything(tmp_path / "one", root, camera)
        for other in ("two", "shards"):
            for ours, theirs in zip(one, everything(tmp_path / other, root, camera), strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(everything(tmp_path / "one", root, "eye")[0], one[0])


def test_threads_make_no_difference(labelling, root, tmp_path):
    threads = torch.get_num_threads()
    label_dataset(labelling, tmp_path / "one", show_progress=False)
    torch.set_num_threads(3)
    try:
        label_dataset(labelling, tmp_path / "three", show_progress=False)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    for ours, theirs in zip(everything(tmp_path / "one", root), everything(tmp_path / "three", root), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def broken(depth, episode_index):
    depth[1:2] = {1: np.nan}.get(episode_index, depth[1:2])
    return depth


def test_a_source_that_breaks_off_is_taken_up_again(labelling, root, tmp_path, monkeypatch):
    opened = partial(open_brightness, change=broken)
    half = replace(labelling, source=replace(SOURCE, open=opened))
    words = "Source 'brightness': the depth of camera 'ear' in episode 1 holds NaN or infinity in 1 frames, .*frame 1"
    with pytest.raises(ValueError, match=words):
        label_dataset(half, tmp_path / "labels", show_progress=False)
    asked, label = [], depth_labelling.label_episode
    monkeypatch.setattr(depth_labelling, "label_episode", lambda *given: asked.append(given[-1]) or label(*given))
    assert label_dataset(labelling, tmp_path / "labels", show_progress=False).num_labelled == 10
    assert asked == [1, 2]
    assert label_dataset(labelling, tmp_path / "labels", show_progress=False).num_labelled == 0
    assert asked == [1, 2]
    label_dataset(labelling, tmp_path / "whole", show_progress=False)
    for ours, theirs in zip(everything(tmp_path / "labels", root), everything(tmp_path / "whole", root), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda depth, _: depth[1:], "has 3 frames, the episode has 4"),
        (lambda depth, _: depth[:, :32], r"is \[32, 64\] in size"),
        (lambda depth, _: depth[0], "has 2 dimensions"),
        (lambda depth, _: -depth, "holds negative metres in 4 frames"),
    ],
)
def test_depth_that_cannot_be(labelling, tmp_path, change, words):
    wrong = replace(labelling, source=replace(SOURCE, open=partial(open_brightness, change=change)))
    with pytest.raises(ValueError, match=f"camera 'ear' in episode 0 {words}"):
        label_dataset(wrong, tmp_path / "labels", show_progress=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": ("nose",)}, "Unknown camera 'nose'"),
        ({"cameras": ("ear", "ear")}, "each of them once"),
        ({"source": replace(SOURCE, unit="inverse")}, "made for depth in the unit 'm', the source 'brightness' gives"),
        ({"codec": Path("nothing")}, "nothing"),
    ],
)
def test_parts_that_do_not_go_together_write_nothing(labelling, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        label_dataset(replace(labelling, **changes), tmp_path / "labels", show_progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("lidar", "Unknown depth source 'lidar'"),
        ("simulator", "has no ledger of a recording"),
        ("simulator:so101", "takes no argument"),
        ("feature", "Name the feature, as feature:NAME"),
        ("feature:depth", "Unknown feature 'depth'"),
    ],
)
def test_sources_that_do_not_fit(root, words, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose_source(words, LeRobotDataset(root), ("eye",), "cpu")


def test_sources_by_name(root, monkeypatch):
    monkeypatch.setattr("molmoact2.evaluation.depth_sources.require_transformers", lambda: None)
    loaded = []
    monkeypatch.setattr("molmoact2.evaluation.depth_sources.load_anything", lambda *a, **k: loaded.append((a, k)))
    dataset = LeRobotDataset(root)
    choice = choose_source("anything:my/model", dataset, ("eye",), "cuda:1")
    assert (choice.name, choice.unit, loaded) == ("anything:my/model", "inverse", [])
    choice.open(dataset)
    assert loaded == [(("my/model",), {"device": "cuda:1"})]
    assert (
        choose_source("anything", dataset, ("eye",), "cpu").name == "anything:depth-anything/Depth-Anything-V2-Base-hf"
    )
