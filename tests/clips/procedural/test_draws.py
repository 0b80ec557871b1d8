"""Counter-based random numbers: reproducible from first principles, independent of the batch, and random enough."""

import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vaportok_rl.clips.procedural.draws import Draws, clip_keys

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """SplitMix64's finaliser in plain integers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % WORD
    return value ^ (value >> 31)


def name_word(name: str) -> int:
    encoded = name.encode()
    return (zlib.crc32(encoded) << 32) | zlib.crc32(encoded[::-1] + b"#")


def key_of(seed: int, split: str, index: int) -> int:
    return mix((mix((seed + name_word(split)) % WORD) + GOLDEN * (index + 1)) % WORD)


def draws_of(count: int, seed: int = 0, split: str = "train") -> Draws:
    return Draws(clip_keys(seed, split, np.arange(count)))


def test_the_reference_here_is_splitmix64() -> None:
    # Published outputs of SplitMix64 seeded with 1234567.
    outputs = [mix((1234567 + GOLDEN * step) % WORD) for step in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(-(2**70), 2**70), st.sampled_from(["train", "test"]), st.integers(0, 2**40))
def test_keys_follow_from_seed_split_and_index(seed: int, split: str, index: int) -> None:
    assert int(clip_keys(seed, split, np.array([index]))[0]) == key_of(seed, split, index)


def test_numbers_follow_from_key_and_name() -> None:
    drawn = draws_of(3, seed=11).uniform("camera/pan", 2, 2)
    for row in range(3):
        stream = mix(key_of(11, "train", row) ^ name_word("camera/pan"))
        expected = [(mix((stream + GOLDEN * counter) % WORD) >> 40) / 2**24 for counter in (1, 2, 3, 4)]
        assert drawn[row].flatten().tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 63), min_size=1, max_size=20))
def test_rows_are_the_numbers_of_the_whole_batch(rows: list[int]) -> None:
    whole = draws_of(64)
    part = whole.rows(torch.tensor(rows))
    assert len(part) == len(rows)
    assert torch.equal(part.uniform("a", 3), whole.uniform("a", 3)[rows])
    assert torch.equal(part.normal("b"), whole.normal("b")[rows])
    assert torch.equal(part.choice("c", 7, 2), whole.choice("c", 7, 2)[rows])


def test_shape_only_arranges() -> None:
    draws = draws_of(5)
    assert draws.uniform("x").shape == (5,)
    assert torch.equal(draws.uniform("x", 6).reshape(5, 2, 3), draws.uniform("x", 2, 3))


def test_uniform_fills_the_unit_interval() -> None:
    numbers = draws_of(200).uniform("u", 100)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    # One number of many neighbouring clips is as uniform as many numbers of one clip.
    assert stats.kstest(draws_of(20_000).uniform("u").numpy(), "uniform").pvalue > 1e-3


def test_names_splits_seeds_and_clips_are_unrelated() -> None:
    count = 20_000
    base = draws_of(count).uniform("pan").double()
    others = [
        draws_of(count).uniform("pam").double(),
        draws_of(count).uniform("nap").double(),
        draws_of(count, split="test").uniform("pan").double(),
        draws_of(count, seed=1).uniform("pan").double(),
        base.roll(1),
        draws_of(count).uniform("pan", 2)[:, 1].double(),
    ]
    for other in others:
        assert abs(np.corrcoef(base.numpy(), other.numpy())[0, 1]) < 4 / math.sqrt(count)


def test_choice_is_even_and_in_range() -> None:
    picks = draws_of(21_000).choice("family", 7)
    assert picks.dtype == torch.int64
    counts = torch.bincount(picks, minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert draws_of(10).choice("only", 1).eq(0).all()


def test_between_keeps_its_bounds_also_per_clip() -> None:
    draws = draws_of(500)
    drawn = draws.between("x", -3.0, 5.0, 4)
    assert drawn.min() >= -3
    assert drawn.max() <= 5
    high = torch.linspace(2.0, 9.0, 500)
    stretched = draws.between("x", 1.0, high)
    assert torch.allclose((stretched - 1) / (high - 1), draws.uniform("x"), atol=1e-6)


def test_normal_has_the_moments_it_promises() -> None:
    numbers = draws_of(20_000).normal("n")
    assert numbers.mean().item() == pytest.approx(0, abs=0.03)
    assert numbers.std().item() == pytest.approx(1, abs=0.03)
    assert numbers.abs().max() <= 2 * math.sqrt(3) + 1e-6
