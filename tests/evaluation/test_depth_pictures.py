"""Pictures of cells: where they lie, how they are outlined, and that colours mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.depth import changed_cells
from molmoact2.evaluation.depth_pictures import (
    HEAT,
    OUTLINE,
    code_colours,
    depth_picture,
    eroded,
    error_colours,
    outlined,
    resized,
    spread,
)
from molmoact2.evaluation.depth_tile import HEIGHT, STRIP, thought_tile
from molmoact2.types import DepthReasoning

SIZES = st.tuples(st.integers(4, 40), st.integers(4, 40))
WIDTH = OUTLINE[-1][0]
"""Pixels of a whole outline."""


@given(size=SIZES, side=st.integers(1, 4))
def test_every_pixel_belongs_to_the_cell_that_its_middle_lies_in(size, side):
    cells = spread(np.arange(side * side), size)
    for row in range(size[0]):
        for column in range(size[1]):
            place = int((row + 0.5) * side / size[0]), int((column + 0.5) * side / size[1])
            assert cells[row, column] == place[0] * side + place[1]


@pytest.mark.parametrize("size", [(200, 200), (90, 160), (130, 70)])
def test_a_cell_lies_where_the_change_map_looks(size):
    before = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for cell in (0, 37, 99):
        after = before.copy()
        after[spread(np.arange(100), size) == cell] = (255, 0, 255)
        changed = changed_cells(before, after, side=10)
        assert changed[cell]
        assert changed.sum() <= 9  # its neighbours may notice, as resizing blurs their edges


@given(size=SIZES, seed=st.integers(0, 99), distance=st.integers(1, 3))
def test_erosion_is_what_it_says(size, seed, distance):
    inside = np.random.default_rng(seed).random(size) < 0.9
    padded = np.pad(inside, distance)
    width = 2 * distance + 1
    slow = [
        [padded[row : row + width, column : column + width].all() for column in range(size[1])]
        for row in range(size[0])
    ]
    assert np.array_equal(eroded(inside, distance), slow)


@given(seed=st.integers(0, 99), share=st.floats(0, 1))
def test_only_renewed_cells_are_drawn_on(seed, share):
    random = np.random.default_rng(seed)
    picture, changed = random.integers(0, 256, (60, 90, 3), np.uint8), random.random(9) < share
    drawn = outlined(picture, changed)
    kept = ~spread(changed, (60, 90))
    assert np.array_equal(drawn[kept], picture[kept])
    assert (drawn[eroded(~kept, 1) ^ eroded(~kept, OUTLINE[1][0])] == 255).all()


def test_the_outline_goes_around_a_region_and_not_around_each_of_its_cells():
    changed = np.array([True, True, False] + [False] * 6)
    picture = np.full((90, 90, 3), 100, np.uint8)
    drawn = outlined(picture, changed)
    assert (drawn[1, 1:59] == 255).all()
    assert (drawn[1:29, 58] == 255).all()
    assert (drawn[WIDTH : 30 - WIDTH, 30] == np.round(100 + 0.22 * 155)).all()
    assert np.array_equal(drawn[WIDTH : 30 - WIDTH, WIDTH:30], picture[WIDTH : 30 - WIDTH, WIDTH:30])
    assert np.array_equal(outlined(picture, np.zeros(9, bool)), picture)


def test_every_code_has_a_colour_of_its_own():
    codes = np.arange(128)[np.arange(121) % 128]
    colours = code_colours(codes, (11, 11)).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == len(codes)
    assert len(np.unique(code_colours(np.full(121, 7), (11, 11)).reshape(-1, 3), axis=0)) == 1


def test_larger_errors_are_darker():
    colours = error_colours(np.linspace(-0.2, 0.2, 41, dtype=np.float32)[None], largest=0.1)[0].astype(int)
    assert np.array_equal(colours, colours[::-1])
    assert colours[20].tolist() == HEAT[0].tolist()
    assert (colours[:11] == HEAT[-1]).all()
    assert (np.diff(colours[20:31].sum(axis=1)) < 0).all()


def test_images_of_fractions_are_drawn_as_those_of_bytes():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(resized(image / 255, (5, 7)), image)
    assert resized(image, (10, 14)).shape == (10, 14, 3)


def thought(**fields) -> DepthReasoning:
    return DepthReasoning(codes=np.arange(9), changed=np.arange(9) < 4, **fields)


def test_a_thought_is_drawn_with_its_decoder_or_as_colours():
    decoded = np.zeros((32, 32, 3), np.uint8)
    assert depth_picture(thought(decoder=lambda _codes: decoded)) is decoded
    assert np.array_equal(depth_picture(thought()), code_colours(np.arange(9), (320, 320)))


@pytest.mark.parametrize("num_layers", [1, 6, 36, 80])
def test_a_tile_has_the_shape_of_its_image_and_a_bar_per_layer(num_layers):
    image = np.zeros((48, 64, 3), np.uint8)
    closed, open_ = (
        thought_tile(thought(gates=np.full(num_layers, gate, np.float32)), image, error_mm=12.0) for gate in (0.0, 1.0)
    )
    assert closed.shape == (HEIGHT + STRIP, HEIGHT * 64 // 48, 3)
    bars = (closed != open_).any(axis=2)[HEIGHT:].any(axis=0)
    starts = int((np.diff(bars.astype(int), prepend=0) == 1).sum())
    assert starts == (num_layers if num_layers < 16 else 1)
    assert not (closed != open_)[:HEIGHT].any()
