"""The endless shuffled order: every epoch is a permutation, with random access."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vaportok_rl.clips import ClipOrder


@given(st.integers(1, 30), st.integers(0, 2**40), st.integers(0, 50))
def test_every_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    assert sorted(ClipOrder(count, seed).take(epoch * count, count)) == list(range(count))


@given(st.integers(1, 20), st.lists(st.integers(0, 25), min_size=1, max_size=6), st.integers(0, 60))
def test_pieces_join_to_the_whole(count: int, lengths: list[int], start: int) -> None:
    pieces: list[int] = []
    order = ClipOrder(count, seed=3)
    for length in lengths:
        pieces += order.take(start + len(pieces), length)
    assert pieces == ClipOrder(count, seed=3).take(start, sum(lengths))


@given(st.integers(1, 20), st.integers(0, 100), st.integers(0, 100))
def test_what_was_taken_before_does_not_matter(count: int, first: int, then: int) -> None:
    order = ClipOrder(count, seed=9)
    order.take(first, 7)
    assert order.take(then, 5) == ClipOrder(count, seed=9).take(then, 5)


def test_epochs_and_seeds_differ() -> None:
    order = ClipOrder(100, seed=0)
    assert order.take(0, 100) != order.take(100, 100)
    assert order.take(0, 100) != ClipOrder(100, seed=1).take(0, 100)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    ClipOrder(50, seed=1).take(0, 120)
    assert torch.equal(before, torch.get_rng_state())
