"""Cameras stored as pictures in the data files, and features that are no numbers at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from old_datasets import change_info, write_old

from molmoact2.data import open_dataset
from molmoact2.data.pictures import decode_picture

LENGTHS = (4, 3)
FRONT = "observation.images.front"


@pytest.fixture
def episodes(make_episode):
    return [make_episode(number, length) for number, length in enumerate(LENGTHS)]


@pytest.fixture
def root(tmp_path, schema, episodes):
    return write_old(tmp_path / "pictures", schema, episodes, image_format="PNG")


def test_pictures_are_those_that_were_stored(root, episodes):
    dataset = open_dataset(root)
    assert dataset.cameras == ("front", "wrist")
    for index in np.random.default_rng(0).permutation(sum(LENGTHS)):
        frame = dataset.frame(int(index))
        for camera, image in frame.images.items():
            np.testing.assert_array_equal(image, episodes[frame.episode_index].images[camera][frame.frame_index])
    streamed = [frame.images["wrist"] for frame in dataset.stream()]
    np.testing.assert_array_equal(streamed, np.concatenate([episode.images["wrist"] for episode in episodes]))


def test_jpeg_is_read_too(tmp_path, schema, episodes):
    dataset = open_dataset(write_old(tmp_path / "jpeg", schema, episodes, image_format="JPEG"))
    image = dataset.frame(5).images["front"].astype(int)
    assert np.abs(image - episodes[1].images["front"][1]).mean() < 3


def test_several_row_groups(root, episodes):
    path = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=3)
    dataset = open_dataset(root)
    for index in (3, 0, 2):
        np.testing.assert_array_equal(dataset.frame(index).images["front"], episodes[0].images["front"][index])


def test_channels_first(root, episodes):
    change_info(root, lambda info: info["features"][FRONT].update(shape=[3, 32, 48], names=["channels", "h", "w"]))
    dataset = open_dataset(root)
    assert dataset.image_size("front") == (32, 48)
    np.testing.assert_array_equal(dataset.frame(0).images["front"], episodes[0].images["front"][0])


def damaged(path, change) -> None:
    table = pq.read_table(path)
    pictures = [change(row) for row in table[FRONT].to_pylist()]
    column = pa.array(pictures, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(table.set_column(table.schema.get_field_index(FRONT), FRONT, column), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"bytes": None}, "has no bytes in it"),
        (lambda _row: None, "has no bytes in it"),
        (lambda row: row | {"bytes": row["bytes"][:-40]}, "no readable PNG or JPEG"),
        (lambda row: row | {"bytes": b"GIF89a"}, "no readable PNG or JPEG"),
    ],
)
def test_damaged_pictures(root, change, message):
    damaged(root / "data/chunk-000/episode_000001.parquet", change)
    dataset = open_dataset(root)
    dataset.frame(3)
    with pytest.raises(ValueError, match=rf"episode_000001.parquet: the picture '{FRONT}' of frame 0 .*{message}"):
        dataset.frame(4)


def test_pictures_of_another_size(root):
    change_info(root, lambda info: info["features"][FRONT].update(shape=[48, 32, 3]))
    with pytest.raises(ValueError, match=r"shape \[32, 48, 3\], not \[48, 32, 3\]"):
        open_dataset(root).frame(0)


def test_a_column_of_something_else(root):
    change_info(root, lambda info: info["features"].update({"observation.images.top": info["features"][FRONT]}))
    with pytest.raises(ValueError, match=r"'observation.images.top' is missing, not pictures"):
        open_dataset(root).frame(0)


def test_transparent_pictures_are_refused_and_grey_ones_read():
    from io import BytesIO

    from PIL import Image

    def png(mode: str) -> bytes:
        buffer = BytesIO()
        Image.new(mode, (4, 2), 7).save(buffer, format="PNG")
        return buffer.getvalue()

    assert decode_picture(png("L")).tolist() == np.full((2, 4, 3), 7).tolist()
    with pytest.raises(ValueError, match="colour mode RGBA"):
        decode_picture(png("RGBA"))


OTHERS = {
    "note": {"dtype": "string", "shape": [1], "names": None},
    "language_persistent": {"dtype": "language", "shape": [1], "names": None},
    "observation.audio": {"dtype": "audio", "shape": [1], "names": None},
    "observation.images.depth": {
        "dtype": "video",
        "shape": [32, 48, 1],
        "names": ["height", "width", "channels"],
        "info": {"video.is_depth_map": True},
    },
    "observation.images.far": {"dtype": "video", "shape": [32, 48, 3], "names": None, "info": {"is_depth_map": True}},
}


def test_other_features_are_listed_and_not_read(tmp_path, schema, episodes):
    dataset = open_dataset(write_old(tmp_path / "more", schema, episodes, features=OTHERS, columns={"note": "slow"}))
    assert dataset.other_features == tuple(OTHERS)
    assert dataset.cameras == ("front", "wrist")
    assert dataset.missing_videos == {}
    assert set(dataset.frame(0).extras) == {"next.reward", "cube_pose"}
    assert set(OTHERS).isdisjoint(dataset.stats)
    for name, feature in OTHERS.items():
        with pytest.raises(ValueError, match=rf"The feature '{name}' is {feature['dtype']}, not numbers. Columns: "):
            dataset.column(name)


def test_states_under_other_names(tmp_path, schema, episodes):
    root = write_old(tmp_path / "names", schema, episodes)
    for number in range(len(episodes)):
        path = root / f"data/chunk-000/episode_{number:06d}.parquet"
        table = pq.read_table(path)
        pq.write_table(
            table.rename_columns([{"observation.state": "observation.arm"}.get(n, n) for n in table.column_names]), path
        )
    change_info(
        root, lambda info: info["features"].update({"observation.arm": info["features"].pop("observation.state")})
    )
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.column("observation.arm"), np.concatenate([e.state for e in episodes]))
    assert len(dataset.actions) == sum(LENGTHS)
    with pytest.raises(ValueError, match=r"Unknown column 'observation.state'.*observation.arm"):
        _ = dataset.states


def test_ragged_vectors_are_refused(root):
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    ragged = pa.array([[1, 2, 3, 4], [5, 6], [7, 8, 9]], pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", ragged), path)
    with pytest.raises(
        ValueError, match=r"episode_000001.parquet: the column 'action' is not float32 of shape \[3, 3\]"
    ):
        open_dataset(root)
