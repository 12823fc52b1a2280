"""Recorded depth as a source: columns, 16-bit PNG and 16-bit video, in millimetres or metres."""

import json
import shutil
from io import BytesIO

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from molmoact2.data import LeRobotDataset
from molmoact2.data.depth_features import FeatureDepth

SIZE = (32, 48)
DEPTH_MM = np.random.default_rng(0).integers(0, 2**16, (30, *SIZE)).astype(np.uint16)
LENGTHS = (4, 5, 6, 7, 8)


def add_feature(root, name, described, column=None):
    """Add a feature to a dataset on disk; of its data file, `column` is the new column."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][name] = described
    path.write_text(json.dumps(info))
    if column is not None:
        (path,) = root.glob("data/*/*.parquet")
        pq.write_table(pq.read_table(path).append_column(name, column), path)


def png(image):
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def nested(values):
    rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[2])
    return pa.FixedSizeListArray.from_arrays(rows, values.shape[1])


def add_column(root, name, values):
    add_feature(root, name, {"dtype": values.dtype.name, "shape": list(SIZE), "names": None}, nested(values))


def add_pictures(root, name, pictures):
    add_feature(root, name, {"dtype": "image", "shape": [*SIZE, 1], "names": None}, pa.array(pictures))


def add_video(root, name, depth, pixels="gray16le", codec="ffv1"):
    """One video file of all episodes, and the table of episodes that points into it."""
    add_feature(root, name, {"dtype": "video", "shape": [*SIZE, 1], "info": {"video.is_depth_map": True}})
    path = root / f"videos/{name}/chunk-000/file-000.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=15)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixels
        for image in depth:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray16le").reformat(format=pixels)))
        container.mux(stream.encode())
    (table,) = root.glob("meta/episodes/*/*.parquet")
    starts = np.cumsum([0, *LENGTHS]) / 15
    spans = {"chunk_index": [0] * 5, "file_index": [0] * 5, "from_timestamp": starts[:-1], "to_timestamp": starts[1:]}
    rows = pq.read_table(table)
    for key, values in spans.items():
        rows = rows.append_column(f"videos/{name}/{key}", pa.array(values))
    pq.write_table(rows, table)


def read_all(root, name, camera="front"):
    """The depth of all episodes, last episode first, after the check that comes before a labelling."""
    dataset, source = LeRobotDataset(root), FeatureDepth(feature=name)
    source.check(dataset, (camera,))
    found = [source.episode(dataset, record, camera) for record in reversed(dataset.episodes)]
    return np.concatenate(found[::-1])


WRITERS = {
    "column": lambda root, name: add_column(root, name, DEPTH_MM),
    "pictures": lambda root, name: add_pictures(root, name, [png(image) for image in DEPTH_MM]),
    "video": lambda root, name: add_video(root, name, DEPTH_MM),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_whole_numbers_are_millimetres(dataset_root, kind):
    WRITERS[kind](dataset_root, "observation.depth.front")
    depth = read_all(dataset_root, "observation.depth.{camera}")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, DEPTH_MM.astype(np.float32) * np.float32(1e-3))


def test_fractions_are_metres(dataset_root):
    metres = (DEPTH_MM / 1000).astype(np.float32)
    add_column(dataset_root, "depth", metres)
    np.testing.assert_array_equal(read_all(dataset_root, "depth"), metres)
    assert FeatureDepth(feature="depth").name == "feature:depth"


def test_one_feature_for_two_cameras(dataset_root):
    add_column(dataset_root, "depth", DEPTH_MM)
    with pytest.raises(ValueError, match=r"cannot be the depth of 2 cameras. Write \{camera\}"):
        FeatureDepth(feature="depth").check(LeRobotDataset(dataset_root), ("front", "wrist"))


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        ("depht", "Unknown feature 'depht'"),
        ("action", r"no depth map: it is float32 of the shape \[3\].*Readable are"),
        ("observation.images.front", r"no depth map: it is video of the shape \[32, 48, 3\]"),
    ],
)
def test_features_that_are_no_depth(dataset_root, feature, words):
    with pytest.raises(ValueError, match=words):
        FeatureDepth(feature=feature).check(LeRobotDataset(dataset_root), ("front",))


def test_colour_coded_video_is_refused(dataset_root):
    add_video(dataset_root, "depth", DEPTH_MM, pixels="yuv420p", codec="libx264")
    with pytest.raises(ValueError, match=r"file-000.mp4: its pixels are yuv420p\. Readable are"):
        read_all(dataset_root, "depth")


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (png(np.zeros(SIZE, np.uint8)), "frame 2 of an episode has the mode L, not 16 bits"),
        ({"bytes": b"not a picture", "path": None}, "is no readable PNG"),
        ({"bytes": None, "path": "elsewhere.png"}, "is no readable PNG"),
    ],
)
def test_pictures_that_are_no_depth(dataset_root, picture, words):
    pictures = [png(image) for image in DEPTH_MM]
    pictures[11] = picture
    add_pictures(dataset_root, "depth", pictures)
    with pytest.raises(ValueError, match=words):
        read_all(dataset_root, "depth")


@pytest.mark.parametrize("damage", ["cut", "gone", "short"])
def test_damaged_video(dataset_root, damage):
    depth = {"short": DEPTH_MM[:25]}.get(damage, DEPTH_MM)
    add_video(dataset_root, "depth", depth)
    path = dataset_root / "videos/depth/chunk-000/file-000.mp4"
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:200])
        case "gone":
            shutil.rmtree(path.parent)
    words = {"cut": "file-000.mp4: ", "gone": "the video of episode 4 is missing", "short": "it has 3 frames for the 8"}
    with pytest.raises(ValueError, match=words[damage]):
        read_all(dataset_root, "depth")
