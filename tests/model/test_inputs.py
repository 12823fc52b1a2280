"""Positions and masks of rows that hold several prompts, against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model.attention import prompt_mask
from molmoact2.model.inputs import ModelInputs

ROWS = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=3)
"""Lengths of the prompts of each row."""


def laid_out(rows: list[list[int]], image_bits: int = 0) -> ModelInputs:
    """Rows of prompts of these lengths, padded by one at least; `image_bits` say which columns hold image tokens."""
    width = max(map(sum, rows)) + 1
    segment = torch.zeros(len(rows), width, dtype=torch.long)
    for row, lengths in enumerate(rows):
        numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        segment[row] = torch.nn.functional.pad(numbers, (0, width - len(numbers)), value=len(lengths) - 1)
    valid = torch.tensor([[column < sum(lengths) for column in range(width)] for lengths in rows])
    is_image = torch.tensor([bool(image_bits >> column & 1) for column in range(width)]).expand_as(valid)
    return ModelInputs(
        token_ids=torch.zeros_like(segment), image_mask=is_image & valid, valid=valid, crops=torch.zeros(0, 1, 1),
        pooling=torch.zeros(0, 1, dtype=torch.long), segment=segment,
    )  # fmt: skip


@given(rows=ROWS)
def test_positions_begin_anew_with_every_prompt(rows: list[list[int]]):
    inputs = laid_out(rows)
    for lengths, positions, valid in zip(rows, inputs.positions, inputs.valid, strict=True):
        assert positions[valid].tolist() == [place for length in lengths for place in range(length)]
        assert (positions >= 0).all()


@given(rows=ROWS, image_bits=st.integers(0, 8191))
def test_a_token_sees_its_own_prompt_only(rows: list[list[int]], image_bits: int):
    inputs = laid_out(rows, image_bits)
    assert inputs.segment is not None
    mask = prompt_mask(inputs.image_mask, inputs.valid, inputs.segment)[:, 0]
    for row, (segment, valid, image) in enumerate(zip(inputs.segment, inputs.valid, inputs.image_mask, strict=True)):
        for query in range(int(valid.sum())):
            for key in range(len(valid)):
                is_visible = key <= query or bool(image[query] and image[key])
                expected = bool(segment[query] == segment[key] and valid[key] and is_visible)
                assert mask[row, query, key] == expected


def test_one_prompt_per_row_needs_no_segments():
    inputs = laid_out([[3], [4], [1]])
    assert inputs.segment is not None
    without = ModelInputs(**{**vars(inputs), "segment": None})
    assert torch.equal(without.positions[without.valid], inputs.positions[inputs.valid])
    given_masks = [prompt_mask(i.image_mask, i.valid, i.segment) for i in (without, inputs)]
    assert torch.equal(*given_masks)


def test_inputs_move_with_their_segments():
    inputs = laid_out([[2, 1]]).to("meta")
    assert inputs.segment is not None
    assert {value.device.type for value in vars(inputs).values()} == {"meta"}
    assert ModelInputs(**{**vars(laid_out([[2]])), "segment": None}).to("meta").segment is None


@pytest.mark.parametrize("shift", [1, 1000])
def test_attention_depends_on_distances_alone(shift: int):
    """Why a prompt may stand anywhere: rotated queries and keys at positions p + shift score as at p."""
    from molmoact2.model.layers import rotary_angles, rotate

    query, key = torch.randn(2, 1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    place = torch.arange(6)[None]
    scores = []
    for positions in (place, place + shift):
        angles = rotary_angles(positions, 8, 10_000.0)
        scores.append(rotate(query, angles) @ rotate(key, angles).transpose(-1, -2))
    torch.testing.assert_close(*scores, rtol=0, atol=2e-4 if shift == 1000 else 1e-5)
