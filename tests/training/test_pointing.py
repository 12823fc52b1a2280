"""Losses of pointing: zero for one who knows, nothing for what is absent or unseen, and sums over all else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import THINGS, scene_pool, scene_stream, small_encoder, small_stage, small_start
from torch import Tensor

from molmoact2.training.examples import Places
from molmoact2.training.pointing import (
    CENTER_M,
    HEADS_FILE,
    SCALE_M,
    PointingHeads,
    PointingLabels,
    pointing_losses,
    scale_place,
)

START = small_start()
ENCODER = small_encoder(START)
PLATE, RED, BLUE = (THINGS.index(name) for name in ("plate", "red cube", "blue cube"))


def labels(**changes: Tensor) -> PointingLabels:
    """Two scenes of five things and two cameras of 16 tokens; the second has no goal."""
    random = torch.Generator().manual_seed(0)
    plain = PointingLabels(
        place_m=torch.rand(2, 5, 3, generator=random),
        is_present=torch.ones(2, 5, dtype=torch.bool),
        cell=torch.randint(0, 16, (2, 2, 5), generator=random),
        named=torch.tensor([0, 2]),
        goal=torch.tensor([3, -1]),
    )
    return replace(plain, **changes)


class OracleHeads(PointingHeads):
    """Heads that know the answers."""

    labels: PointingLabels

    def forward(self, trigger: Tensor, cells: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002 - it knows without looking
        row, target = torch.arange(2), scale_place(self.labels.place_m)
        place = torch.stack((target[row, self.labels.named], target[row, self.labels.goal]), dim=1)
        one_hot = torch.nn.functional.one_hot(self.labels.cell.clamp(min=0), 16).float() * 100
        pointer = one_hot[row, :, self.labels.named]
        return place, pointer, one_hot.transpose(2, 3), target[:, None, None].expand(2, 2, 16, 5, 3)


def losses(heads: PointingHeads, known: PointingLabels, seed: int = 0) -> dict[str, float]:
    random = torch.Generator().manual_seed(seed)
    trigger, cells = torch.randn(2, 8, generator=random), torch.randn(2, 2, 16, 8, generator=random)
    return {name: float(loss.detach()) for name, loss in pointing_losses(heads, trigger, cells, known).items()}


def test_losses_vanish_for_one_who_knows_and_not_otherwise():
    heads = OracleHeads(8, 5)
    heads.labels = labels()
    assert losses(heads, labels()) == pytest.approx(dict.fromkeys(losses(heads, labels()), 0.0), abs=1e-6)
    guessed = losses(PointingHeads.new(8, 5, seed=0), labels())
    assert all(value > 0.1 for value in guessed.values()), guessed


def test_the_error_is_the_distance_in_metres():
    heads = OracleHeads(8, 5)
    heads.labels = labels()
    moved = labels()
    moved.place_m[0, 0] += torch.tensor([0.03, 0.0, -0.04])
    assert losses(heads, moved)["error_m"] == pytest.approx(0.05, rel=1e-4)
    torch.testing.assert_close(scale_place(torch.tensor(CENTER_M) + SCALE_M), torch.ones(3))


@pytest.mark.parametrize("thing", range(5))
def test_absent_and_unseen_things_count_for_nothing(thing: int):
    heads, known = PointingHeads.new(8, 5, seed=0), labels()
    known.cell[:, :, thing], known.is_present[:, thing] = -1, False
    moved = known.place_m.clone()
    moved[:, thing] += 100
    assert losses(heads, known) == losses(heads, replace(known, place_m=moved))


def test_sums_are_those_of_each_scene_by_itself():
    heads = PointingHeads.new(8, 5, seed=0)
    random = torch.Generator().manual_seed(0)
    trigger, cells = torch.randn(2, 8, generator=random), torch.randn(2, 2, 16, 8, generator=random)
    together = pointing_losses(heads, trigger, cells, labels())
    single = [PointingLabels(**{name: value[i : i + 1] for name, value in vars(labels()).items()}) for i in (0, 1)]
    alone = [pointing_losses(heads, trigger[i : i + 1], cells[i : i + 1], single[i]) for i in (0, 1)]
    for name, value in together.items():
        torch.testing.assert_close(value, alone[0][name] + alone[1][name], rtol=1e-5, atol=1e-6)
    assert labels().counts() == {n: a + b for (n, a), b in zip(single[0].counts().items(), single[1].counts().values(),
                                                               strict=True)}  # fmt: skip


def test_what_is_counted_is_what_is_known():
    assert labels().counts() == {"place": 3, "named": 4, "things": 20, "thing_place": 20, "error_m": 2}
    known = labels()
    known.is_present[0, 3] = False
    known.cell[1, 0, 2] = -1
    assert known.counts() == {"place": 2, "named": 3, "things": 19, "thing_place": 19, "error_m": 2}
    assert known.has_place.tolist() == [[True, False], [True, False]]


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_cells_are_the_image_tokens_that_contain_the_pixels(seed: int):
    pool = scene_pool(1, seed)
    example = ENCODER(scene_stream(pool).example(0), small_stage(), (0,))
    assert example.pointing is not None
    for view, thing in np.ndindex(2, len(THINGS)):
        u, v = pool.pixel[0, view, thing]
        assert example.pointing.cell[view, thing] == int(v * 2) * 2 + int(u * 2)


@pytest.mark.parametrize(("pixel", "cell"), [((0.0, 0.0), 0), ((1.0, 1.0), 3), ((0.99, 0.0), 1), ((0.0, 1.0), 2)])
def test_corners_are_in_the_corner_cells(pixel: tuple[float, float], cell: int):
    placed = scene_stream(scene_pool(1)).example(0)
    pixels = np.full_like(placed.places.pixel, -1)
    pixels[1, RED] = pixel
    places = replace(placed.places, pixel=pixels)
    target = ENCODER.pointing(replace(placed, places=places), ENCODER.processor.encode_question("?", placed.images))
    assert target is not None
    assert target.cell[1, RED] == cell
    assert (np.delete(target.cell.ravel(), len(THINGS) + RED) == -1).all()


def test_what_is_absent_has_no_cell_wherever_it_is_said_to_be():
    placed = scene_stream(scene_pool(1)).example(0)
    present = placed.places.is_present.copy()
    present[PLATE] = False
    places = Places(**{**vars(placed.places), "is_present": present})
    target = ENCODER.pointing(replace(placed, places=places), ENCODER.processor.encode_question("?", placed.images))
    assert target is not None
    assert (target.cell[:, PLATE] == -1).all()
    assert (target.cell[:, RED] >= 0).all()


def test_new_heads_follow_from_the_seed_and_are_found_in_a_checkpoint(tmp_path: Path):
    from safetensors.torch import save_file

    heads = PointingHeads.new(8, 5, seed=3)
    assert losses(heads, labels()) == losses(PointingHeads.new(8, 5, seed=3), labels())
    assert losses(heads, labels()) != losses(PointingHeads.new(8, 5, seed=4), labels())
    save_file(dict(heads.named_parameters()), tmp_path / HEADS_FILE)
    assert losses(PointingHeads.load(tmp_path), labels()) == losses(heads, labels())


@pytest.mark.parametrize("content", [None, b"", b"not tensors"])
def test_missing_or_damaged_heads_are_refused(tmp_path: Path, content: bytes | None):
    for data in [content] * (content is not None):
        (tmp_path / HEADS_FILE).write_bytes(data)
    with pytest.raises(ValueError, match=r"no usable pointing_heads\.safetensors"):
        PointingHeads.load(tmp_path)


def test_heads_of_other_shapes_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    tensors = dict(PointingHeads.new(8, 5, seed=0).named_parameters())
    save_file({**tensors, "place.0.weight": torch.zeros(3, 3)}, tmp_path / HEADS_FILE)
    with pytest.raises(ValueError, match="no usable"):
        PointingHeads.load(tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if "things" not in name}, tmp_path / HEADS_FILE)
    with pytest.raises(ValueError, match="no usable"):
        PointingHeads.load(tmp_path)
