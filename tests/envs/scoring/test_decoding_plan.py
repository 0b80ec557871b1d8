"""Every request is decoded exactly once, with little padding and bounded batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaportok_rl.envs.scoring.decoding_plan import length_ladder, plan_decoding

geometries = st.tuples(st.integers(1, 70), st.integers(1, 80))


@given(geometries, st.floats(0.0, 0.5))
def test_ladder_ends_at_k_and_keeps_padding_below_the_bound(geometry: tuple[int, int], padding: float) -> None:
    tokens, patches = geometry
    ladder = length_ladder(tokens, patches, padding)
    assert list(ladder) == sorted(set(ladder))
    assert ladder[-1] == tokens
    for n in range(1, tokens + 1):
        padded = min(rung for rung in ladder if rung >= n)
        assert padded + patches <= max(n + patches, (n + patches) * (1 + padding) + 1e-9)


def test_ladder_is_short_where_it_matters() -> None:
    # One rung a length would decode every pair alone; the geometry of nano and of the paper's tokenizer.
    assert len(length_ladder(64, 64)) <= 8
    assert len(length_ladder(1024, 1024)) <= 9


@settings(deadline=None)
@given(geometries, st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(0, 10_000))
def test_every_request_is_covered_exactly_once(
    geometry: tuple[int, int], group: int, clips: int, room: int, seed: int
) -> None:
    tokens, patches = geometry
    n_tokens = np.random.default_rng(seed).integers(1, tokens + 1, (group, clips))
    limit = room * (tokens + patches)
    plan = plan_decoding(n_tokens, tokens, patches, limit)

    position = 0
    for batch in plan.batches:
        kept = plan.n_tokens[batch.start : batch.stop]
        assert batch.start == position < batch.stop
        assert len(kept) * (batch.padded + patches) <= limit
        assert batch.padded in length_ladder(tokens, patches)
        assert (kept <= batch.padded).all()
        assert ((batch.padded + patches) <= 1.1 * (kept + patches) + 1e-9).all()
        assert not batch.exact or (kept == batch.padded).all()
        position = batch.stop
    pairs = list(zip(plan.clips.tolist(), plan.n_tokens.tolist(), strict=True))
    assert position == len(pairs)

    asked = {(clip, int(n_tokens[g, clip])) for g in range(group) for clip in range(clips)}
    assert len(pairs) == len(set(pairs)) == len(plan.clips)
    assert set(pairs) == asked
    for g in range(group):
        for clip in range(clips):
            assert pairs[plan.inverse[g, clip]] == (clip, n_tokens[g, clip])


@pytest.mark.parametrize("company", [[1], [5, 5, 5], [16, 1, 3], [6, 4]])
@pytest.mark.parametrize("padding", [0.0, 0.1])
def test_padding_of_a_pair_does_not_depend_on_its_company(company: list[int], padding: float) -> None:
    def way(lengths: list[int]) -> tuple[int, bool]:
        plan = plan_decoding(np.array([lengths]), 16, 16, 10_000, padding)
        return next(
            (batch.padded, batch.exact)
            for batch in plan.batches
            if (plan.n_tokens[batch.start : batch.stop] == 5).any()
        )

    assert way([5, *company]) == way([5])


def test_without_padding_only_equal_lengths_share_a_batch() -> None:
    plan = plan_decoding(np.array([[3, 7, 3, 1], [7, 7, 16, 1]]), 16, 16, 10_000, padding=0)
    assert [(batch.padded, batch.stop - batch.start) for batch in plan.batches] == [(1, 1), (3, 2), (7, 2), (16, 1)]
    assert all(batch.exact for batch in plan.batches)
