"""Which cells of the main image count as changed."""

import numpy as np
import pytest

from golden_cases import Case, cases
from molmoact2.depth import changed_cells
from molmoact2.depth.change import cells_of

IMAGE = np.random.default_rng(0).integers(1, 256, (128, 128, 3), dtype=np.uint8)


@pytest.mark.parametrize("case", cases("depth_continuous"), ids=str)
def test_the_recorded_masks(case: Case):
    changed = changed_cells(case["image0"], case["next/image0"], side=4)
    np.testing.assert_array_equal(changed, case["next/update_mask"])


def test_nothing_changes_in_the_same_image():
    assert not changed_cells(IMAGE, IMAGE, side=4).any()


def test_brightness_is_no_change_but_another_scene_is():
    assert not changed_cells(IMAGE // 2 * 2, IMAGE // 2, side=4).any()
    assert changed_cells(IMAGE, IMAGE[::-1].copy(), side=4).all()


def test_one_cell_changes_alone():
    moved = IMAGE.copy()
    moved[64:96, 32:64] = IMAGE[:32, :32]
    assert np.flatnonzero(changed_cells(IMAGE, moved, side=4)).tolist() == [2 * 4 + 1]


def test_black_cells_count_as_unchanged():
    assert not changed_cells(np.zeros_like(IMAGE), IMAGE, side=4).any()


def test_cells_against_loops():
    cells = cells_of(IMAGE, 4)
    for row in range(4):
        for column in range(4):
            piece = IMAGE[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            np.testing.assert_array_equal(cells[row * 4 + column], piece.ravel())


def test_images_of_any_size_are_compared():
    big = IMAGE.repeat(3, axis=0).repeat(2, axis=1)
    assert changed_cells(big, IMAGE, side=10).shape == (100,)
