"""Images become the patches and image tokens that the reference recorded."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from golden_cases import CASES, Case, processor
from molmoact2.processing.images import choose_tiling, patches_of, resize, tilings_up_to, view_and_crops
from molmoact2.processing.layout import crops_block, pool, tiled_patches, view_block
from molmoact2.processing.settings import ImageSettings, read_image_settings

SETTINGS = processor("tiny-crops").images
TOKENS = processor("tiny").vocabulary.image
RELEASED = replace(SETTINGS, size=(378, 378), margins=(4, 4), max_crops=8)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_recorded_inputs(case: Case, threads: int):
    torch.set_num_threads(threads)
    encoded = case.processor.encode(case.observation(), case.tag, think=case.thinks)
    torch.set_num_threads(2)
    np.testing.assert_array_equal(encoded.token_ids, case["inputs/input_ids"][0])
    np.testing.assert_array_equal(encoded.image_mask, case["inputs/token_type_ids"][0])
    assert case["inputs/attention_mask"].all()
    np.testing.assert_array_equal(encoded.crops, case["inputs/pixel_values"])
    # The reference counts patches from 0 in each image; we count through.
    grids, patches = case["inputs/image_grids"], encoded.crops.shape[1]
    windows = grids[:, 0] * grids[:, 1] + grids[:, 2] * grids[:, 3]
    starts = np.cumsum([0, *case["inputs/image_num_crops"][:-1]]) * patches
    recorded = case["inputs/image_token_pooling"]
    np.testing.assert_array_equal(
        encoded.pooling, np.where(recorded < 0, -1, recorded + np.repeat(starts, windows)[:, None])
    )


def test_patches_against_loops():
    settings = replace(SETTINGS, size=(28, 42), margins=(0, 0), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    crops = np.random.default_rng(0).integers(0, 256, (2, 28, 42, 3), dtype=np.uint8)
    patches = patches_of(crops, settings)
    for crop in range(2):
        for row in range(2):
            for column in range(3):
                piece = crops[crop, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
                expected = (piece / 255 - np.array(settings.mean)) / np.array(settings.std)
                np.testing.assert_allclose(patches[crop, row * 3 + column], expected.ravel(), atol=1e-6)


def test_resizing_is_plain_bilinear():
    image = np.random.default_rng(1).integers(0, 256, (31, 53, 3), dtype=np.uint8)
    whole = interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].double(), (20, 64), mode="bilinear")
    expected = whole[0].permute(1, 2, 0).numpy()
    assert np.abs(resize(image, (20, 64)) - expected).max() <= 0.5 + 1e-4
    assert resize(image, (31, 53)) is image


def test_resizing_does_not_depend_on_threads():
    image, found = np.random.default_rng(2).integers(0, 256, (120, 160, 3), dtype=np.uint8), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(resize(image, (378, 378)))
    np.testing.assert_array_equal(*found)


def test_read_only_images_are_taken_without_a_warning(recwarn: pytest.WarningsRecorder):
    image = np.zeros((20, 20, 3), np.uint8)
    image.flags.writeable = False
    resize(image, (10, 10))
    assert not recwarn.list


@pytest.mark.parametrize("settings", [SETTINGS, RELEASED], ids=["tiny", "released"])
@pytest.mark.parametrize("tiling", [(1, 1), (1, 3), (2, 2)])
def test_every_patch_of_the_whole_is_read_once_and_from_its_place(settings: ImageSettings, tiling: tuple[int, int]):
    """An image that numbers its patches is cut into crops; reading them back gives the numbers in order."""
    rows, columns = (n * w + sum(settings.margins) for n, w in zip(tiling, settings.window, strict=True))
    numbers = np.arange(rows * columns).reshape(rows, columns)
    image = np.stack([numbers // 256, numbers % 256, 0 * numbers], axis=-1).astype(np.uint8)
    image = image.repeat(settings.patch_size, axis=0).repeat(settings.patch_size, axis=1)
    patches = patches_of(view_and_crops(image, settings, tiling), replace(settings, mean=(0.0,) * 3, std=(1.0,) * 3))
    pixels = np.rint(patches.reshape(-1, patches.shape[-1])[:, :2] * 255).astype(int)
    read = pixels[tiled_patches(settings, tiling)]
    np.testing.assert_array_equal(read[..., 0] * 256 + read[..., 1], numbers)


@given(st.integers(1, 12))
def test_tilings_are_listed_by_number_then_rows(max_crops: int):
    slow = [(i, j) for i in range(1, max_crops + 1) for j in range(1, max_crops + 1) if i * j <= max_crops]
    assert [tuple(row) for row in tilings_up_to(max_crops).tolist()] == sorted(slow, key=lambda t: (t[0] * t[1], t[0]))


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_choose_tiling_against_loops(height: int, width: int):
    margin, window = 8 * 14, 19 * 14
    inner = max(height - margin, 1), max(width - margin, 1)
    scale = {
        (rows, columns): min(rows * window / inner[0], columns * window / inner[1])
        for rows, columns in sorted(
            ((i, j) for i in range(1, 9) for j in range(1, 9) if i * j <= 8), key=lambda t: (t[0] * t[1], t[0])
        )
    }
    enlarging = {tiling: s for tiling, s in scale.items() if s >= 1}
    expected = min(enlarging, key=enlarging.__getitem__) if enlarging else max(scale, key=scale.__getitem__)
    assert choose_tiling(height, width, RELEASED) == expected


def test_uneven_grids_are_filled_half_before_and_half_after():
    patches = np.arange(9).reshape(3, 3)
    assert pool(patches, (2, 2))[1, 1].tolist() == [8, -1, -1, -1]
    assert pool(patches, (5, 3))[0, 0].tolist() == [-1, -1, -1, *range(9), -1, -1, -1]


def test_released_robot_layout():
    block = view_block(replace(RELEASED, crop_mode="resize", view_columns=False), TOKENS)
    assert len(block.token_ids) == 198
    assert block.pooling.shape == (196, 4)
    assert block.pooling[13].tolist() == [26, -1, 53, -1]
    assert block.token_ids[[0, 1, -1]].tolist() == [TOKENS.start, TOKENS.patch, TOKENS.end]


@pytest.mark.parametrize(("view_columns", "view_start"), [(True, False), (False, True)])
def test_column_and_start_tokens_follow_their_flags(view_columns: bool, view_start: bool):
    settings = replace(SETTINGS, view_columns=view_columns, view_start=view_start, columns=not view_columns)
    ids = crops_block(settings, TOKENS, (1, 1)).token_ids.tolist()
    view_length = 6 + 2 * view_columns
    assert ids[0] == (TOKENS.low_res_start if view_start else TOKENS.start)
    assert ids[:view_length].count(TOKENS.column) == 2 * view_columns
    assert ids[view_length:].count(TOKENS.column) == 2 * (not view_columns)
    assert ids[view_length] == TOKENS.start


def test_video_frames_stand_between_frame_tokens():
    frames = [np.full((30, 40, 3), shade, np.uint8) for shade in (0, 255)]
    encoded = processor("tiny").encode_video("What happens?", frames, [0.0, 0.5])
    assert encoded.prompt.startswith("0.0 <|image|> 0.5 <|image|><|im_start|>user\nWhat happens?<|im_end|>")
    assert encoded.token_ids.tolist().count(TOKENS.frame_start) == 2
    assert encoded.image_mask.sum() == 2 * 6
    assert encoded.pooling.max() == 31
    assert encoded.crops[0].max() == -1
    assert encoded.crops[1].min() == 1
    with pytest.raises(ValueError, match="one time for each"):
        processor("tiny").encode_video("What happens?", frames, [0.0])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("crop_mode", "crop", "crop_mode"),
        ("resample", 3, "bilinear"),
        ("patch_size", 15, "size"),
        ("patch_size", "14", "patch_size"),
        ("pooling_size", [2], "two numbers"),
        ("pooling_size", [0, 2], "pooling_size"),
        ("image_std", [0.5, 0.5], "image_std"),
        ("overlap_margins", [2, 2], "overlap_margins"),
        ("size", None, "size"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: object, message: str):
    image = {"crop_mode": "resize", "resample": 2, "patch_size": 14, "pooling_size": [2, 2], "max_crops": 4,
             "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "overlap_margins": [1, 1],
             "size": {"height": 56, "width": 56}}  # fmt: skip
    layout = {"image_use_col_tokens": True, "use_single_crop_start_token": True}
    assert read_image_settings(image, layout).view_columns
    with pytest.raises(ValueError, match=message):
        read_image_settings({**image, field: value}, layout)
