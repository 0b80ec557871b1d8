"""Position tables against the written specification, one number at a time."""

import math

import pytest
import torch

from vaportok_rl.tokenizer.transformer import latent_table, line_table, patch_table


def slow_line(channels: int, position: int, base: float) -> list[float]:
    half = channels // 2
    rates = [base ** (-index / half) for index in range(half)]
    return [math.sin(position * rate) for rate in rates] + [math.cos(position * rate) for rate in rates]


def slow_patch_row(channels: int, time: int, row: int, column: int) -> list[float]:
    space = slow_line(channels // 2, column, 10000.0) + slow_line(channels // 2, row, 10000.0)
    return [one + two for one, two in zip(space, slow_line(channels, time, 10000.0), strict=True)]


@pytest.mark.parametrize(("channels", "base"), [(2, 10000.0), (12, 10000.0), (16, 100.0)])
def test_line(channels: int, base: float) -> None:
    table = line_table(channels, torch.arange(40), base)
    assert table.dtype == torch.float64
    expected = torch.tensor([slow_line(channels, position, base) for position in range(40)], dtype=torch.float64)
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-12)


def test_latents() -> None:
    table = latent_table(24, 1024, 10000.0)
    assert (table.shape, table.dtype) == ((1, 1024, 24), torch.float32)
    expected = torch.tensor([slow_line(24, position, 10000.0) for position in range(1024)], dtype=torch.float64)
    assert torch.equal(table[0], expected.float())


@pytest.mark.parametrize(("channels", "grid"), [(8, (1, 1, 1)), (16, (3, 2, 5)), (48, (4, 6, 2))])
def test_patches_are_row_major_over_time_height_width(channels: int, grid: tuple[int, int, int]) -> None:
    table = patch_table(channels, grid)
    assert (table.shape, table.dtype) == ((1, math.prod(grid), channels), torch.float32)
    for time in range(grid[0]):
        for row in range(grid[1]):
            for column in range(grid[2]):
                index = (time * grid[1] + row) * grid[2] + column
                expected = torch.tensor(slow_patch_row(channels, time, row, column))
                torch.testing.assert_close(table[0, index], expected, rtol=0, atol=1e-6)
