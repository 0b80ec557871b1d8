"""Random numbers addressed by the clip's place in the training order."""

import pytest
import torch
from scipy import stats

from vaportok_rl.tokenizer.pretraining.noise import ClipNoise

CPU = torch.device("cpu")


def test_a_clip_draws_the_same_in_any_batch() -> None:
    whole = ClipNoise(3, range(10, 16), CPU)
    parts = [ClipNoise(3, range(10, 13), CPU), ClipNoise(3, range(13, 16), CPU)]
    for shape in ((2,), (5, 7), (1,)):
        drawn = torch.cat([part.uniform((3, *shape)) for part in parts])
        assert torch.equal(whole.uniform((6, *shape)), drawn)


def test_clips_seeds_and_calls_differ() -> None:
    noise = ClipNoise(0, range(4), CPU)
    rows = [*noise.uniform((4, 50)), *noise.uniform((4, 50)), *ClipNoise(1, range(4), CPU).uniform((4, 50))]
    assert len({tuple(row.tolist()) for row in rows}) == 12


def test_numbers_are_uniform_across_clips() -> None:
    first = ClipNoise(0, range(4000), CPU).uniform((4000, 2))
    assert first.min() >= 0
    assert first.max() < 1
    for column in first.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    assert abs(stats.pearsonr(first[:, 0].numpy(), first[:, 1].numpy()).statistic) < 0.06
    assert abs(stats.pearsonr(first[:-1, 0].numpy(), first[1:, 0].numpy()).statistic) < 0.06


def test_the_global_stream_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ClipNoise(0, range(3), CPU).uniform((3, 9))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_wrong_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected 3 rows, one per clip, got shape \(2, 4\)"):
        ClipNoise(0, range(3), CPU).uniform((2, 4))
