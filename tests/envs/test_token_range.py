"""Allowed lengths against a search through all paths."""

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaportok_rl.envs import TokenRange

TOKENS = 4


@st.composite
def ranges(draw: st.DrawFn) -> TokenRange:
    length = draw(st.integers(1, 4))
    minimum = draw(st.integers(1, TOKENS))
    maximum = draw(st.none() | st.integers(minimum, TOKENS))
    budget = draw(st.none() | st.integers(minimum * length, TOKENS * length + 1))
    return TokenRange(TOKENS, length, minimum, maximum, budget)


def possible_paths(limits: TokenRange) -> list[tuple[int, ...]]:
    lengths = range(limits.minimum, (limits.maximum or TOKENS) + 1)
    paths = itertools.product(lengths, repeat=limits.path_length)
    return [path for path in paths if limits.budget is None or sum(path) <= limits.budget]


@given(ranges())
def test_allowed_is_what_some_path_within_the_budget_goes_on_with(limits: TokenRange) -> None:
    paths = possible_paths(limits)
    for step in range(limits.path_length):
        for begun in {path[:step] for path in paths}:
            mask = limits.masks(np.array(step), np.array(sum(begun)))
            following = {path[step] for path in paths if path[:step] == begun}
            assert {action + 1 for action in np.flatnonzero(mask)} == following


@given(ranges(), st.data())
def test_clipping_one_by_one_and_all_at_once(limits: TokenRange, data: st.DataObject) -> None:
    asked = np.array(
        data.draw(st.lists(st.integers(1, TOKENS), min_size=limits.path_length, max_size=limits.path_length))
    )
    spent, kept = 0, []
    for step, n in enumerate(asked):
        allowed = np.flatnonzero(limits.masks(np.array(step), np.array(spent))) + 1
        kept.append(int(limits.clip(n, np.array(step), np.array(spent))))
        assert kept[-1] == min(allowed, key=lambda length: abs(length - n))
        spent += kept[-1]
    assert tuple(kept) in possible_paths(limits)
    assert limits.clip_paths(torch.from_numpy(asked)[None]).tolist() == [kept]


def test_there_is_a_mask_after_the_last_decision() -> None:
    limits = TokenRange(TOKENS, 2, budget=3)
    assert limits.masks(np.array([2]), np.array([3])).any()


def test_masks_broadcast_groups_over_members() -> None:
    limits = TokenRange(TOKENS, 3, budget=6)
    masks = limits.masks(np.array([[0], [1]]), np.array([[0, 0], [1, 4]]))
    assert masks.shape == (2, 2, TOKENS)
    assert masks.sum(-1).tolist() == [[4, 4], [4, 1]]
