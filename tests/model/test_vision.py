"""The vision transformer's positions, levels and layers."""

import pytest
import torch

from molmoact2.model.vision import VisionTransformer, resize_positions
from molmoact2.testing import TINY


def table(side: int, width: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(side**2, width, generator=torch.Generator().manual_seed(side)).to(dtype)


def small_tower(layers: tuple[int, ...]) -> VisionTransformer:
    tower = VisionTransformer(TINY.vit_config, layers).requires_grad_(False)
    for number, parameter in enumerate(tower.parameters()):
        parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=torch.Generator().manual_seed(number))
    return tower


def crops(count: int) -> torch.Tensor:
    levels = torch.randint(0, 256, (count, 16, 14 * 14 * 3), generator=torch.Generator().manual_seed(0))
    return levels / 127.5 - 1


def test_positions_stay_on_the_grid_they_were_made_for():
    positions = table(4)
    assert resize_positions(positions, (4, 4)) is positions


@pytest.mark.parametrize("grid", [(3, 5), (8, 8), (2, 4), (1, 1), (4, 5)])
def test_positions_are_resized_as_torch_does_in_float64(grid: tuple[int, int]):
    positions = table(4)
    image = positions.double().T.reshape(1, 6, 4, 4)
    exact = torch.nn.functional.interpolate(image, grid, mode="bicubic", antialias=True, align_corners=False)
    found = resize_positions(positions, grid)
    torch.testing.assert_close(found.double(), exact.reshape(6, -1).T, rtol=0, atol=1e-6)


def test_even_positions_stay_even():
    even = torch.full((9, 2), 0.7)
    torch.testing.assert_close(resize_positions(even, (5, 2)), torch.full((10, 2), 0.7), rtol=1e-6, atol=0)


def test_rows_and_columns_are_not_exchanged():
    rows = torch.arange(4.0).repeat_interleave(4)[:, None]
    resized = resize_positions(rows, (2, 6)).reshape(2, 6)
    assert (resized.diff(dim=1).abs() < 1e-5).all()
    assert (resized.diff(dim=0) > 1).all()


def test_bfloat16_positions_are_resized_in_float32():
    rounded = table(4, dtype=torch.bfloat16)
    found = resize_positions(rounded, (3, 5))
    torch.testing.assert_close(found, resize_positions(rounded.float(), (3, 5)), rtol=0, atol=0)


def test_pixels_are_rounded_to_the_bytes_they_came_from():
    tower, pixels = small_tower((1,)), crops(1)
    noise = (torch.rand(pixels.shape, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.9 / 127.5
    exact = tower(pixels, (4, 4), torch.float32)
    torch.testing.assert_close(tower(pixels + noise, (4, 4), torch.float32), exact, rtol=0, atol=1e-5)


def test_crops_do_not_see_one_another():
    tower, pixels = small_tower((2, 0)), crops(3)
    together = tower(pixels, (4, 4), torch.float32)
    for crop, features in zip(pixels, together, strict=True):
        torch.testing.assert_close(tower(crop[None], (4, 4), torch.float32)[0], features, rtol=1e-5, atol=1e-5)


def test_features_stand_in_the_order_in_which_layers_are_named():
    forth, back = (small_tower(layers)(crops(1), (4, 4), torch.float32) for layers in ((0, 2), (2, 0)))
    torch.testing.assert_close(forth.roll(32, dims=-1), back, rtol=0, atol=0)


def test_no_crops_give_no_features():
    assert small_tower((0,))(crops(0), (4, 4), torch.float32).shape == (0, 16, 32)
