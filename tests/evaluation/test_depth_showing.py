"""Episodes with depth, shown: thoughts of a policy and labels of a dataset, on paper, on film and in the viewer."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from small_codec import small_codec
from thinker import tiny_thinker

from molmoact2.cli.depth.view import View
from molmoact2.cli.predict import Predict
from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.data.depth_labels import DepthLabels
from molmoact2.depth import changed_cells
from molmoact2.depth.codec import fingerprint, save_codec
from molmoact2.depth.sources import CallableDepth
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.evaluation import depth_truth
from molmoact2.evaluation.depth_drawing import contact_sheet, framed, write_views
from molmoact2.evaluation.depth_labelling import Labelling, label_dataset
from molmoact2.evaluation.depth_pictures import outlined, resized
from molmoact2.evaluation.depth_sources import SourceChoice
from molmoact2.evaluation.depth_truth import EpisodeTruth
from molmoact2.evaluation.depth_view import view_thought
from molmoact2.evaluation.label_view import LabelledEpisode
from molmoact2.evaluation.walk import Walk
from molmoact2.inference import load_policy
from molmoact2.types import DepthReasoning

LENGTHS, SIZE, FPS = (2, 5), (36, 48), 15


def brightness(dataset, record, camera):
    """A made-up depth in metres: bright is far."""
    return dataset.episode_images(record.episode_index, camera).astype(np.float32).mean(axis=3) / 255 + 0.2


SOURCE = SourceChoice(
    name="brightness", unit="m", open=lambda _: CallableDepth(function=brightness, unit="m", name="brightness")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A thinking checkpoint, a dataset of two episodes of a block that moves over noise, a codec and labels."""
    folder = tmp_path_factory.mktemp("showing")
    tiny_thinker(folder / "thinker")
    save_codec(small_codec(), folder / "codec")
    schema = DatasetSchema(
        fps=FPS,
        robot_type=SO101_TABLETOP.tag,
        state_names=SO101_TABLETOP.state_names,
        action_names=SO101_TABLETOP.action_names,
        image_sizes={"front": SIZE, "wrist": SIZE},
    )
    random = np.random.default_rng(0)
    with DatasetWriter(folder / "data", schema) as writer:
        for length in LENGTHS:
            scene = random.integers(60, 200, (9, 12, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
            images = np.repeat(scene[None], length, axis=0)
            for number, image in enumerate(images):
                image[4:16, 3 * number : 3 * number + 12] = (240, 30, 30)
            pictures = {"front": images, "wrist": images[:, ::-1].copy()}
            values = random.uniform(-20, 20, (length, 6)).astype(np.float32)
            writer.add_episode(Episode(images=pictures, state=values, action=values, task="push the red block"))
    labelling = Labelling(dataset=folder / "data", codec=folder / "codec", source=SOURCE, cameras=("front",))
    label_dataset(labelling, folder / "labels", show_progress=False)
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    return LeRobotDataset(folder / "data")


@pytest.fixture(scope="module")
def walk(folder, dataset):
    policy = load_policy(folder / "thinker")
    return Walk(policy=policy, tag=policy.processor.tag(None), dataset=dataset, episode=1)


@pytest.fixture(scope="module")
def looks(walk):
    """Of a walk in one session."""
    return list(in_session(walk).moments())


@pytest.fixture
def labelled(folder, dataset):
    labels = DepthLabels.open(folder / "labels", dataset)
    return LabelledEpisode(dataset=dataset, labels=labels, camera="front", episode=1, codec=small_codec())


def frames_of(path):
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], rate


def in_session(walk, **fields):
    return replace(walk, options={"session": walk.policy.new_session(0)}, **fields)


def test_a_walk_remembers_the_look_before(looks, dataset):
    images = dataset.episode_images(1, "front")
    assert [look.frame.frame_index for look in looks] == list(range(LENGTHS[1]))
    assert looks[0].thought.changed.all()
    for before, look in pairwise(looks):
        number = look.frame.frame_index
        expected = changed_cells(images[number - 1], images[number], side=4)
        assert np.array_equal(look.thought.changed, expected)
        assert np.array_equal(look.thought.codes[~expected], before.thought.codes[~expected])


def test_a_walk_of_every_few_frames(walk):
    steps = in_session(walk, every=4, instruction="wave")
    looks = list(steps.moments())
    assert [look.frame.frame_index for look in looks] == [0, 4]
    assert len(looks) == steps.num_moments
    assert steps.moments_per_second == FPS / 4
    assert {look.observation.instruction for look in looks} == {"wave"}


def test_what_is_drawn_is_what_was_seen_and_thought(walk, looks, dataset):
    look = looks[3]
    view = walk.view(look)
    (title, camera), (_, depth) = view.pictures.items()
    assert title == "front, renewed cells outlined"
    image = resized(dataset.episode_images(1, "front")[3], camera.shape[:2])
    assert np.array_equal(camera, outlined(image, look.thought.changed))
    assert camera.shape == depth.shape == (320, 426, 3)
    assert view.facts[0] == f"{look.thought.changed.sum()} of 16 cells renewed"
    assert view.time_s == pytest.approx(3 / FPS)
    assert view.headline == "“push the red block”"


def test_the_truth_is_drawn_beside_it(walk, dataset):
    depth = brightness(dataset, dataset.episodes[1], "front")
    look = next(in_session(walk, truth=EpisodeTruth(codec=small_codec(), depth=depth)).moments())
    view = walk.view(look)
    assert list(view.pictures)[2:] == ["true depth", "error, 0 to 100 mm or more"]
    assert view.facts[-1].startswith(f"{look.truth.error_mm:.1f} mm from the truth on average (the codec's own")
    assert {picture.shape for picture in view.pictures.values()} == {(320, 426, 3)}


def thought(**fields):
    return DepthReasoning(codes=np.arange(16), changed=np.arange(16) < 5, **fields)


def drawn(**fields):
    image = np.zeros((48, 64, 3), np.uint8)
    return view_thought(image, thought(**fields), camera="front", headline="go")


def test_facts_say_age_and_passes_where_they_are_known():
    assert drawn().facts == ("5 of 16 cells renewed", "map of this observation")
    late = drawn(age=1, passes=7).facts
    assert late == ("5 of 16 cells renewed", "7 passes of the decoder", "map of the observation before")
    assert drawn(age=3).facts[-1] == "map of 3 observations before"


def test_a_frame_shows_the_gates():
    closed, open_ = (framed(drawn(gates=np.full(6, gate, np.float32))) for gate in (0.0, 1.0))
    bars = (closed != open_).any(axis=(0, 2))
    assert int((np.diff(bars.astype(int), prepend=0) == 1).sum()) == 6
    assert not np.array_equal(framed(drawn()), closed)


def test_a_sheet_has_a_column_per_moment():
    views = [drawn(), drawn(), drawn()]
    assert contact_sheet(views).shape[1] == 720
    assert contact_sheet(views * 3).shape[1] > 9 * 200


@pytest.mark.parametrize("shape", [(48, 64), (37, 53), (120, 40)])
def test_frames_of_any_image_can_be_encoded(shape, tmp_path):
    image = np.zeros((*shape, 3), np.uint8)
    view = view_thought(image, thought(), camera="front", headline="go")
    write_views(tmp_path / "film.mp4", [view], frames_per_second=7.5)
    frames, rate = frames_of(tmp_path / "film.mp4")
    assert rate == 8
    assert np.abs(frames[0].astype(int) - framed(view)).mean() < 4


def test_labels_are_drawn_as_they_are(labelled, folder, dataset):
    labels = DepthLabels.open(folder / "labels", dataset)
    frame = list(labelled.moments())[4]
    row = dataset.episodes[1].from_index + 4
    own, remembered = labelled.thoughts(frame)
    assert np.array_equal(own.codes, labels.codes("front")[row])
    assert np.array_equal(remembered.codes, labels.buffer_codes("front")[row])
    view = labelled.view(frame)
    picture = resized(small_codec().picture(own.codes), (320, 426))
    assert np.array_equal(view.pictures["codes of this frame"], picture)
    updated = labels.updated("front")[row]
    kept = resized(small_codec().picture(remembered.codes), (320, 426))
    assert np.array_equal(view.pictures["codes that a policy remembers"], outlined(kept, updated))
    stale = (own.codes != remembered.codes).sum()
    assert view.facts == (f"{updated.sum()} of 16 cells renewed", f"{stale} remembered codes are not the frame's own")


def test_labels_of_another_codec_are_refused(labelled):
    other = small_codec(unit="inverse")
    with pytest.raises(ValueError, match=f"with the codec .*, this one is {fingerprint(other)}"):
        replace(labelled, codec=other)


@pytest.mark.parametrize("codec", [True, False])
def test_depth_view_writes_a_sheet_and_a_film(folder, tmp_path, codec):
    view = View(dataset=folder / "data", labels=folder / "labels", episode=1, codec=folder / "codec" if codec else None)
    replace(view, output=tmp_path / "depth.png").run()
    replace(view, output=tmp_path / "depth.mp4").run()
    assert Image.open(tmp_path / "depth.png").height > 500
    frames, rate = frames_of(tmp_path / "depth.mp4")
    assert (len(frames), rate) == (LENGTHS[1], FPS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.mp4", "depth.png"]


def test_depth_view_measures_labels_against_the_truth(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(depth_truth, "choose_source", lambda *_: SOURCE)
    view = View(dataset=folder / "data", labels=folder / "labels", codec=folder / "codec", true_depth="brightness")
    replace(view, output=tmp_path / "truth.png").run()
    replace(view, output=tmp_path / "plain.png", true_depth=None).run()
    assert Image.open(tmp_path / "truth.png").height > Image.open(tmp_path / "plain.png").height


def test_depth_view_records_for_the_viewer(folder, tmp_path):
    pytest.importorskip("rerun")
    view = View(dataset=folder / "data", labels=folder / "labels", codec=folder / "codec")
    replace(view, rerun=str(tmp_path / "labels.rrd")).run()
    assert (tmp_path / "labels.rrd").stat().st_size > 10_000
    assert len(list(tmp_path.iterdir())) == 1


def test_predict_walks_through_an_episode(folder, tmp_path, capsys):
    ask = Predict(policy=str(folder / "thinker"), dataset=folder / "data", think=True)
    replace(ask, episode=0, output=tmp_path / "thoughts.mp4").run()
    replace(ask, episode=1, output=tmp_path / "thoughts.png", every=3).run()
    assert len(frames_of(tmp_path / "thoughts.mp4")[0]) == LENGTHS[0]
    assert Image.open(tmp_path / "thoughts.png").height > 400
    assert "thoughts.png" in capsys.readouterr().out


def test_predict_records_for_the_viewer(folder, tmp_path):
    pytest.importorskip("rerun")
    ask = Predict(policy=str(folder / "thinker"), dataset=folder / "data", episode=0, think=True)
    replace(ask, rerun=str(tmp_path / "thoughts.rrd")).run()
    assert (tmp_path / "thoughts.rrd").stat().st_size > 10_000


def test_predict_draws_what_was_thought_below_the_plan(folder, tmp_path):
    pytest.importorskip("matplotlib")
    ask = Predict(policy=str(folder / "thinker"), dataset=folder / "data", index=3)
    replace(ask, output=tmp_path / "plain.png").run()
    replace(ask, output=tmp_path / "thought.png", think=True).run()
    plain, thinking = (Image.open(tmp_path / name) for name in ("plain.png", "thought.png"))
    assert thinking.width == plain.width
    assert thinking.height == pytest.approx(plain.height + 3.1 * 130, abs=2)


def test_predict_measures_thoughts_against_the_truth(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(depth_truth, "choose_source", lambda *_: SOURCE)
    policy = shutil.copytree(folder / "thinker", tmp_path / "thinker")
    ask = Predict(policy=str(policy), dataset=folder / "data", think=True, true_depth="simulator")
    with pytest.raises(ValueError, match=r"has no depth codec \(a folder depth_codec\)"):
        replace(ask, episode=0, output=tmp_path / "refused.png").run()
    save_codec(small_codec(), policy / "depth_codec")
    replace(ask, episode=0, output=tmp_path / "walk.png").run()
    assert Image.open(tmp_path / "walk.png").height > 700
    pytest.importorskip("matplotlib")
    replace(ask, index=2, output=tmp_path / "one.png").run()
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["one.png", "walk.png"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episode": 0}, "--episode and --true-depth need --dataset and --think"),
        ({"true_depth": "simulator"}, "need --dataset and --think"),
        ({"think": True, "rerun": "a.rrd"}, "add --episode"),
        ({"think": True, "every": 2}, "add --episode"),
    ],
)
def test_predictions_with_parts_missing_are_refused(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        Predict(policy="tiny", dataset=folder / "data", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nothing to do: give --output, --rerun, or both"),
        ({"output": "a.pdf"}, r"drawn as \.png or \.mp4"),
        ({"output": "a.png", "episode": 2}, "no episode 2; the dataset has the episodes 0 to 1"),
        ({"output": "a.png", "every": 0}, "at least 1, got 0"),
        ({"rerun": "a.html"}, r"ends in \.rrd"),
    ],
)
def test_walks_that_cannot_be_are_refused(folder, tmp_path, monkeypatch, fields, message):
    monkeypatch.chdir(tmp_path)
    fields = {**fields, **{name: Path(fields[name]) for name in fields.keys() & {"output"}}}
    with pytest.raises(ValueError, match=message):
        Predict(policy=str(folder / "thinker"), dataset=folder / "data", think=True, **{"episode": 0, **fields}).run()
    assert not list(tmp_path.iterdir())


def test_errors_of_labels_need_their_codec(folder, tmp_path):
    shutil.copytree(folder / "labels", tmp_path / "labels", ignore=shutil.ignore_patterns("codec"))
    with pytest.raises(ValueError, match="add --codec"):
        View(dataset=folder / "data", labels=tmp_path / "labels", true_depth="simulator").run()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episode": 7}, "no episode 7"),
        ({"camera": "wrist"}, "'wrist'.*front"),
    ],
)
def test_labels_that_are_not_there_are_refused(folder, tmp_path, monkeypatch, fields, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        View(dataset=folder / "data", labels=folder / "labels", **fields).run()
    assert not list(tmp_path.iterdir())
